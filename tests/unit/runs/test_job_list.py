"""The records of Jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from job import storage
from job.runs.documents import encode
from job.runs.job_list import read_jobs

if TYPE_CHECKING:
    from pathlib import Path

    from job.storage import Store

ENDED = {"node": "n1", "started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T01:00:00Z", "gpu_seconds": 3600.0}


def write(output: Store, uid: str, *attempts: dict[str, Any]) -> None:
    """Write a record."""
    record = {"run_id": "a", "name": "finetune", "namespace": "ml", "image": "i", "attempts": attempts}
    output.write(f"jobs/{uid}.json", encode(record))


@pytest.fixture
def output(tmp_path: Path) -> Store:
    """Return an output without records."""
    return storage.open_store(str(tmp_path / "out"))


def test_jobs(output: Store) -> None:
    """Jobs are listed by their last start, with GPU hours of all starts; what else is there is ignored."""
    write(output, "old", ENDED | {"exit_code": 0})
    write(output, "new", ENDED | {"exit_code": 20}, {"node": "n2", "started_at": "2026-01-02T00:00:00Z"})
    write(output, "none")
    output.write("jobs/readme.txt", b"")
    output.write("jobs/archive/x.json", b"")

    jobs = read_jobs(output)

    assert ["new", "old", "none"] == [job.uid for job in jobs]
    assert [1.0, 1.0, 0.0] == [job.gpu_hours() for job in jobs]
    assert ["no end recorded", "succeeded", ""] == [job.outcome() for job in jobs]
    assert ("a", "finetune", 2) == (
        jobs[0].document()["run_id"],
        jobs[0].document()["name"],
        len(jobs[0].record.attempts),
    )


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ({"exit_code": 0}, "succeeded"),
        ({"exit_code": 3, "reason": "Data"}, "Data (exit code 3)"),
        ({"exit_code": 75}, "failed (exit code 75)"),
    ],
)
def test_outcomes(output: Store, end: dict[str, Any], expected: str) -> None:
    """The outcome is that of the last start."""
    write(output, "uid", ENDED | {"exit_code": 20}, ENDED | end)

    assert [expected] == [job.outcome() for job in read_jobs(output)]


def test_unreadable(output: Store) -> None:
    """An unreadable record is listed with the reason."""
    output.write("jobs/uid.json", b"{")

    [job] = read_jobs(output)

    assert ("uid", None, 0.0) == (job.uid, job.record, job.gpu_hours())
    assert job.detail.startswith("unreadable")


def test_written_during_the_reading(output: Store) -> None:
    """A record that its Job writes after the listing is read as it is then; one that is deleted is left out."""
    write(output, "uid", ENDED)
    write(output, "gone", ENDED)

    class Changing:
        def __getattr__(self, name: str) -> Any:
            return getattr(output, name)

        def list(self, *arguments: Any, **options: Any) -> Any:
            listed = list(output.list(*arguments, **options))
            write(output, "uid", ENDED, ENDED)
            output.delete("jobs/gone.json")
            return iter(listed)

    [job] = read_jobs(Changing())

    assert job.record is not None
    assert 2 == len(job.record.attempts)


def test_none(output: Store) -> None:
    """An output without records has no Jobs."""
    assert [] == read_jobs(output)
