"""The manual of each command: what ``--help`` prints."""

from __future__ import annotations

import re
import shlex

import pytest

from job import errors
from job.commands import cli
from job.commands.manual import COLUMNS, SETTINGS_USAGE, Manual, all_codes, help_text
from job.config import reference

MANUAL = Manual(
    summary="Do it.",
    usage=("THING", "--all"),
    description="It takes a thing.\n\n" + "It writes words. " * 20,
    flags={"--all": "every thing"},
    examples={"": "nothing", "x": "one thing"},
    exit_codes={0: "done", 130: "Ctrl-C"},
)


def test_overview() -> None:
    """A manual has usage, description, flags, examples and exit codes, in this order, within the width."""
    text = MANUAL.overview("do", 60)

    assert text.startswith(
        "usage: finetune do THING\n   or: finetune do --all\n\nDo it.\n\nIt takes a thing.\n\nIt writes"
    )
    for part in ("\nflags:\n  --all  every thing\n", "\n  finetune do x\n      one thing\n", "\n  130  Ctrl-C"):
        assert part in text
    assert ["usage", "flags", "examples", "exit codes"] == re.findall(r"^([a-z ]+):", text, re.MULTILINE)[
        :1
    ] + re.findall(r"^([a-z ]+):$", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 60


def test_help_of_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The help of a run has every setting in order, and fits the terminal; a wide one is not filled."""
    for columns, limit in ((60, 60), (300, COLUMNS)):
        monkeypatch.setenv("COLUMNS", str(columns))
        text = help_text("run", cli.COMMANDS["run"].MANUAL)

        expected = [row.name for group in reference.groups().values() for row in group.rows]
        shown = re.findall(r"^  --(\S+) \S+$", text, re.MULTILINE)
        assert expected == [name for name in shown if name in expected]
        assert {row.name for row in reference.rows()} == set(expected)
        assert max(len(line) for line in text.splitlines() if line.startswith(" " * 6)) <= limit


def test_unknown_group() -> None:
    """A group that does not exist is a usage error with the groups; a command without settings has none."""
    with pytest.raises(errors.UsageError, match=r"'gat': did you mean gate\?") as caught:
        help_text("run", cli.COMMANDS["run"].MANUAL, "gat")

    assert "kubernetes" in caught.value.remedy
    assert help_text("do", MANUAL, "gat") == help_text("do", MANUAL)


@pytest.mark.parametrize("name", cli.all_commands())
def test_each_manual_is_complete(name: str) -> None:
    """Each command has a summary of one line, a description, an example, its exit codes, and flags or settings."""
    manual = cli.all_commands()[name].MANUAL

    assert len(f"  {name:9}{manual.summary}") <= COLUMNS
    assert manual.summary.endswith(".")
    assert len(manual.description) > 100
    assert manual.examples
    assert {2, "0 to 75", 0} & set(manual.exit_codes)
    assert set(manual.settings) <= set(reference.groups())
    takes_settings = any(how.endswith(SETTINGS_USAGE) for how in manual.usage)
    assert takes_settings == bool(manual.settings)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (name, arguments)
        for name, command in cli.all_commands().items()
        for arguments in command.MANUAL.examples
        if name != "demo"  # checks that the emulator is installed
    ],
)
def test_examples_can_be_parsed(name: str, arguments: str) -> None:
    """Each example of a manual is a valid call."""
    words = shlex.split(arguments.partition(">")[0])

    assert cli.parse([*name.split(), *words])


def test_codes_of_a_run_are_all() -> None:
    """The help of a run has every exit code with its meaning."""
    assert {code: meaning for code, (meaning, _) in errors.exit_codes().items()} == all_codes()
