"""The command `finetune runs jobs`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from job import storage
from job.commands import runs_jobs
from job.errors import SettingsError
from job.observability.progress import Progress
from job.runs.documents import encode

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def output(tmp_path: Path) -> str:
    """Return the folder of an output with a record and a damaged one."""
    store = storage.open_store(str(tmp_path / "out"))
    end = {"ended_at": "2026-01-01T01:00:00Z", "exit_code": 20, "reason": "Unavailable", "gpu_seconds": 5400}
    attempts = [{"node": "n1", "started_at": "2026-01-01T00:00:00Z", **end}]
    record = {"run_id": "flowers-1", "name": "finetune", "namespace": "ml", "image": "i", "attempts": attempts}
    store.write("jobs/uid-1.json", encode(record))
    store.write("jobs/uid-2.json", b"{")
    return store.uri


def execute(*arguments: str) -> None:
    """Execute the command."""
    assert 0 == runs_jobs.parse(arguments).execute(Progress())


def test_table(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A Job is a line; a damaged record is one, too."""
    execute(output)

    header, first, second = capsys.readouterr().out.splitlines()
    assert "JOB NAMESPACE RUN ATTEMPTS LAST START NODE OUTCOME GPU H UID" == " ".join(header.split())
    expected = "finetune ml flowers-1 1 2026-01-01 00:00 n1 Unavailable (exit code 20) 1.50 uid-1"
    assert expected == " ".join(first.split())
    assert "unreadable" in second
    assert second.endswith("uid-2")


def test_json(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The document has all starts."""
    execute(output, "--json", "--limit", "1")

    [job] = json.loads(capsys.readouterr().out)["jobs"]
    assert ("uid-1", 1.5, "n1") == (job["uid"], job["gpu_hours"], job["attempts"][0]["node"])


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--limit", "x"]])
def test_mistakes(arguments: list[str]) -> None:
    """A mistake in the call is exit code 2."""
    with pytest.raises(SettingsError):
        runs_jobs.parse(arguments)
