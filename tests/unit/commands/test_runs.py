"""The group of commands `finetune runs`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from job.commands import cli, runs
from job.errors import UsageError
from job.observability.progress import Progress


@pytest.mark.parametrize(
    "arguments",
    [["runs", "list", "--help"], ["help", "runs", "list"], ["runs", "--help", "list"], ["runs", "list", "x", "-h"]],
)
def test_help_of_a_member(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """The help of a command of two words is its own."""
    cli.parse(arguments).execute(Progress())

    assert capsys.readouterr().out.startswith("usage: finetune runs list OUTPUT_URI")


@pytest.mark.parametrize("arguments", [["runs", "--help"], ["help", "runs"]])
def test_help_of_the_group(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """The help of the group has a line for each of its commands."""
    cli.parse(arguments).execute(Progress())

    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in runs.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["runs"], "second word"),
        (["runs", "prnue"], "'runs prnue': did you mean prune?"),
        (["runs", "gs://b/o"], "gs://b/o"),
    ],
)
def test_unknown(arguments: list[str], named: str) -> None:
    """A second word that is missing or unknown is a usage error with those that exist."""
    with pytest.raises(UsageError) as caught:
        cli.parse(arguments)

    assert named in caught.value.message
    assert "|".join(runs.COMMANDS) in caught.value.remedy


@pytest.mark.slow
def test_no_tensorflow() -> None:
    """None of the commands needs TensorFlow, or imports NumPy to parse its call."""
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from job.commands import runs\n"
        "assert 'numpy' not in sys.modules\n"
        "from job.runs import deletion, facts, inventory, job_list, promotion, retention\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)

    assert 0 == done.returncode, done.stderr
