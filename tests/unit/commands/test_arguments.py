"""Command lines with places beside flags and settings."""

from __future__ import annotations

import pytest

from job.commands.arguments import Arguments, divide
from job.errors import SettingsError

FLAGS = {"--json": "", "--top-k": "3"}


def read(*arguments: str, more: bool = True) -> Arguments:
    """Divide the command line of a command that takes a run and paths."""
    return divide(arguments, command="predict", flags=FLAGS, places=("RUN", "PATH"), more=more)


@pytest.mark.parametrize(
    ("arguments", "places", "flags", "settings"),
    [
        (["r", "a", "b"], ["r", "a", "b"], {}, []),
        (["--json", "r", "--top-k", "2", "-"], ["r", "-"], {"--json": "", "--top-k": "2"}, []),
        (["--top-k=2", "r", "--", "--json", "-x"], ["r", "--json", "-x"], {"--top-k": "2"}, []),
        (["--config", "f.yaml", "r", "a"], ["r", "a"], {}, ["--config", "f.yaml"]),
        (["--storage.user_project", "p", "r", "a"], ["r", "a"], {}, ["--storage.user_project", "p"]),
        (["--storage.user_project=p", "r", "a"], ["r", "a"], {}, ["--storage.user_project=p"]),
        (["--storage.anonymous", "r", "a"], ["r", "a"], {}, ["--storage.anonymous"]),
        (["--storage.anonymous", "false", "r", "a"], ["r", "a"], {}, ["--storage.anonymous", "false"]),
        (["r", "a", "--storage.anonymous", "--json"], ["r", "a"], {"--json": ""}, ["--storage.anonymous"]),
        (["r", "a", "--top-k", "-1"], ["r", "a"], {"--top-k": "-1"}, []),
    ],
)
def test_divided(arguments: list[str], places: list[str], flags: dict[str, str], settings: list[str]) -> None:
    """Places may stand before, between and after flags; a switch takes a value only if it can be nothing else."""
    assert Arguments(places, flags, settings) == read(*arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], ["RUN is missing", "PATH is missing"]),
        (["r"], ["PATH is missing"]),
        (["r", "a", "--top-k"], ["--top-k: needs a value, as in --top-k 3"]),
        (["r", "a", "--top-k", "--json"], ["--top-k: needs a value"]),
        (["r", "a", "--json=1"], ["--json: takes no value"]),
        (["r", "a", "--topk", "3"], ["unknown flag '--topk': did you mean --top-k?"]),
        (["--jsn", "-o"], ["'--jsn'", "'-o'", "RUN is missing"]),
    ],
)
def test_mistakes(arguments: list[str], named: list[str]) -> None:
    """All mistakes are named at once, with what was meant."""
    with pytest.raises(SettingsError) as raised:
        read(*arguments)

    assert [] == [text for text in named if text not in raised.value.message], raised.value.message
    assert "finetune predict RUN PATH…" in raised.value.remedy


def test_too_many_places() -> None:
    """A place too many is no silent loss."""
    with pytest.raises(SettingsError, match="unexpected argument 'c'"):
        read("a", "b", "c", more=False)


def read_run(*arguments: str) -> Arguments:
    """Divide the command line of a command that takes a run alone."""
    return divide(arguments, command="report", flags={"--out": "report"}, places=("RUN",))


def test_run_comes_first() -> None:
    """The RUN of a command is its first place; the flags are left as they are."""
    assert Arguments(["gs://bucket/latest"], {"--out": "a"}, []) == read_run("gs://bucket/latest", "--out", "a")


@pytest.mark.parametrize("arguments", [[], ["--out", "a"], ["gs:/bucket/run"], [""]])
def test_no_run(arguments: list[str]) -> None:
    """What is no location is rejected before anything is opened."""
    with pytest.raises(SettingsError):
        read_run(*arguments)
