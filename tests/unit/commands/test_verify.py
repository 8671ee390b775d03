"""The command `finetune verify`."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from published_runs import FILES, publish

from job import storage
from job.commands import verify
from job.errors import DataError, SettingsError
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a published run."""
    publish(storage.open_store(str(tmp_path / "runs/r")))
    return tmp_path / "runs/r"


def execute(*arguments: str | Path) -> int:
    """Execute the command."""
    return verify.parse([*map(str, arguments)]).execute(Progress())


def test_intact(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file has a line, also the two that hold the checksums; the last line has the verdict."""
    (run / "extra\x1b.txt").touch()

    assert 0 == execute(run)

    lines = capsys.readouterr().out.splitlines()
    names = ["_SUCCESS", "manifest.json", *sorted([*FILES, "provenance.json"])]
    assert names == [line.split()[1] for line in lines if line.startswith("ok ")]
    assert r"unlisted extra\x1b.txt" in lines
    assert lines[-1].startswith(f"{run}: {len(FILES) + 1} files, ")


def test_damaged(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that differs has its reason in the table, and ends with exit code 3."""
    (run / "model/labels.txt").write_text("cats\nbirds\n")

    with pytest.raises(DataError, match=r"1 file is not as published; the first: model/labels\.txt"):
        execute(run)

    assert "differs  model/labels.txt  its size is 11" in capsys.readouterr().out


def test_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The document has the findings, also where a file differs."""
    execute(run, "--json")
    document = json.loads(capsys.readouterr().out)
    assert (True, []) == (document["verified"], document["differences"])

    (run / "config.json").unlink()
    with pytest.raises(DataError):
        execute("--json", run)
    document = json.loads(capsys.readouterr().out)
    assert (False, ["config.json"]) == (document["verified"], [one["name"] for one in document["differences"]])


def test_no_run(tmp_path: Path) -> None:
    """What is no published run ends with exit code 3."""
    with pytest.raises(DataError, match="is not a published run"):
        execute(tmp_path)


@pytest.mark.parametrize("arguments", [[], ["r", "s"], ["r", "--jsno"], ["r", "--run.seed", "x"]])
def test_mistakes(arguments: list[str]) -> None:
    """A mistake in the call is exit code 2."""
    with pytest.raises(SettingsError):
        verify.parse(arguments)


@pytest.mark.slow
def test_no_tensorflow(run: Path) -> None:
    """A run is verified where TensorFlow is not installed."""
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from job.commands import verify\nfrom job.observability.progress import Progress\n"
        f"sys.exit(verify.parse([{str(run)!r}]).execute(Progress([])))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)

    assert 0 == done.returncode, done.stderr
