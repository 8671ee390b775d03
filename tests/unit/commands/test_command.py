"""What commands have in common: a text to print, and a help with every setting."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from posix_locale import output_of

from job.commands.command import printing, settings_help
from job.config import reference
from job.observability.progress import Progress

if TYPE_CHECKING:
    import pytest


def test_printing(capsys: pytest.CaptureFixture[str]) -> None:
    """A text is printed to stdout when the command is executed, and the command succeeds."""
    command = printing("a text")
    assert "" == capsys.readouterr().out

    assert 0 == command.execute(Progress())
    assert ("a text\n", "") == capsys.readouterr()


def test_printing_under_the_posix_locale() -> None:
    """A character that the locale's encoding lacks is replaced, and the help is still printed."""
    program = "from job.commands.command import printing; printing('gs://\\u2026').execute(None)"

    assert "gs://?\n" == output_of(program)


def test_settings_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """The help has every setting in order, and fits the terminal; a wide one is not filled."""
    for columns, limit in ((60, 60), (300, 100)):
        monkeypatch.setenv("COLUMNS", str(columns))
        text = settings_help("run", "Do it.")

        assert text.startswith("usage: finetune run [--config FILE]... [--SETTING VALUE]...\n")
        assert "\n\nDo it.\n" in text
        expected = [row.name for group in reference.groups().values() for row in group.rows]
        assert expected == re.findall(r"^  --(\S+) ", text, re.MULTILINE)[1:]
        assert {row.name for row in reference.rows()} == set(expected)
        assert max(len(line) for line in text.splitlines() if line.startswith(" " * 6)) <= limit
