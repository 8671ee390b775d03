"""`finetune plan` and the pipeline agree: it finds what a start of the job would do."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from runs import ONE_STAGE, SMALL, WITH_REPORT, At, only_run, run, tree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def plan(*arguments: str | Path, settings: Sequence[str] = SMALL) -> tuple[int, dict[str, Any]]:
    """Run the command as a process, and return its exit code and what it prints."""
    command = [sys.executable, "-m", "job", "plan", "--json", *settings, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, json.loads(done.stdout)


def test_published_run(published: Path, pictures: Path, tmp_path: Path) -> None:
    """The run that a start published is found under its id; in another output it is work, under the same id."""
    before = tree(published)

    code, found = plan("--input.uri", pictures, "--output.uri", published, *WITH_REPORT)
    elsewhere = plan("--input.uri", pictures, "--output.uri", tmp_path / "out", *WITH_REPORT)

    assert (0, "published", only_run(published).name) == (code, found["state"], found["run_id"])
    assert (10, "new", found["run_id"]) == (elsewhere[0], elsewhere[1]["state"], elsewhere[1]["run_id"])
    assert before == tree(published)
    assert not (tmp_path / "out").exists()


def test_run_under_way(pictures: Path, tmp_path: Path) -> None:
    """While a process trains there is nothing to do; once it was stopped, a start resumes the run."""
    places = ("--input.uri", pictures, "--output.uri", tmp_path, *ONE_STAGE)
    found = []

    def stop() -> None:
        found.append(plan(*places))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(*places, listeners=[At("stage.started", stop)])
    found.append(plan(*places))

    assert [(0, "under_way"), (10, "unfinished")] == [(code, document["state"]) for code, document in found]
    assert "process " in found[0][1]["holder"]
    assert {only_run(tmp_path).name} == {document["run_id"] for _, document in found}
