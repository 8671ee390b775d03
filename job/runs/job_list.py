"""The records of Kubernetes Jobs in an output: ``jobs/<uid>.json``, each with its starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from job.runs import documents
from job.runs.inventory import parse_time
from job.storage import LostObject

if TYPE_CHECKING:
    import datetime as dt

    from job.runs.documents import Document
    from job.storage import Store

JOBS = "jobs"


@dataclass(frozen=True, kw_only=True)
class ListedJob:
    """A Job.

    Attributes:
        uid: of the Job.
        record: as stored; None: it is unreadable.
        detail: why it is unreadable.
    """

    uid: str
    record: documents.Job | None
    detail: str = ""

    @property
    def last(self) -> Document:
        """The last start; empty if none is recorded."""
        return self.record.attempts[-1] if self.record and self.record.attempts else {}

    @property
    def started_at(self) -> dt.datetime | None:
        """When the last start began; None if that is unknown."""
        return parse_time(self.last.get("started_at"))

    def gpu_hours(self) -> float:
        """Return the hours of GPUs of all starts whose end is recorded."""
        attempts = self.record.attempts if self.record else []
        return sum(float(attempt.get("gpu_seconds") or 0) for attempt in attempts) / 3600

    def outcome(self) -> str:
        """Return how the last start ended; one without an end runs, or was killed."""
        last = self.last
        if not last:
            return ""
        if last.get("ended_at") is None:
            return "no end recorded"
        code = last.get("exit_code")
        return "succeeded" if code == 0 else f"{last.get('reason') or 'failed'} (exit code {code})"

    def document(self) -> Document:
        """Return the Job as plain JSON."""
        record = self.record.document() if self.record else {}
        facts = {"gpu_hours": self.gpu_hours(), "outcome": self.outcome(), "detail": self.detail or None}
        return {"uid": self.uid, **record, **facts}


def read_jobs(output: Store) -> list[ListedJob]:
    """Return the Jobs of an output, the one that started last first; none if there are no records.

    Raises:
        errors.AccessError: the store denies access.
        errors.UnavailableError: it does not respond, after all retries.
    """
    listed = [info for info in output.list(JOBS, recursive=False) if info.name.endswith(".json")]
    jobs = []
    for position, data in output.read_many(listed):
        name = listed[position].name
        if not isinstance(data, LostObject):
            jobs.append(_parse(name, data))
        elif found := output.read(name):  # a running Job has written it since the listing
            jobs.append(_parse(name, found[0]))
    return sorted(jobs, key=lambda job: (job.started_at.timestamp() if job.started_at else 0.0, job.uid), reverse=True)


def _parse(name: str, data: bytes) -> ListedJob:
    uid = PurePosixPath(name).stem
    try:
        return ListedJob(uid=uid, record=documents.parse(data, documents.Job))
    except documents.UnreadableError as error:
        return ListedJob(uid=uid, record=None, detail=f"unreadable: {error}")
