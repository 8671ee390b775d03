"""What commands have in common: a text to print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from posix_locale import output_of

from job.commands.command import printing, showing, writing_into
from job.errors import AccessError
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path


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


def test_no_bars_without_a_terminal() -> None:
    """What is in progress is shown on a terminal alone."""
    progress = Progress()
    with showing(progress):
        assert [] == progress._listeners


def test_names_are_escaped() -> None:
    """Control sequences in a name reach no terminal, and the locale need not have its letters."""
    program = "from job.commands.command import write_line; write_line('a\\x1b[2Jb \\u2026')"

    assert "a\\x1b[2Jb \\u2026\n" == output_of(program)


def test_writing_into_a_folder(tmp_path: Path) -> None:
    """The folder is created; where it cannot be, the error names it: exit 5."""
    with writing_into(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").touch()
    with pytest.raises(AccessError, match="file/c") as caught, writing_into(tmp_path / "a" / "b" / "file" / "c"):
        pass

    assert 5 == caught.value.exit_code
