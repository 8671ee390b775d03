"""``jobs/<uid>.json``: the record of a Kubernetes Job, which outlives its Pods.

It names the run that the Job works on, so that all Pods of the Job continue the run of the first one, and has an entry
for each start: node, times, exit code and reason, also of starts that ended before there was a run.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from job import errors, storage
from job.observability import log
from job.runs import documents
from job.runtime import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from job.config.settings import RunSettings
    from job.runs.documents import Document
    from job.storage import Store

MAX_ATTEMPTS = 100
"""Attempts in a record: the newest."""

END_SECONDS = 2.0
"""Time limit for recording the end, which must not delay it: Spot gives a stopped Pod 15 seconds."""


class JobRecord:
    """The record of the Job that this process is a Pod of; without a Job, nothing is recorded.

    Args:
        output: the store of the Job's run.
        settings: names the Job.

    Attributes:
        gpus: number of GPUs that this start computes on, for its GPU seconds.
    """

    def __init__(self, output: Store, settings: RunSettings) -> None:
        self.gpus = 0
        self._output = output
        self._settings = settings
        self._name = f"jobs/{settings.job_uid}.json"
        self._started_at = ""

    def run_id(self) -> str | None:
        """Return the id of the run that the Job works on; None if there is none yet.

        Raises:
            errors.DataError: the record is unreadable.
        """
        return self._read()[0].run_id if self._settings.job_uid else None

    def pin(self, run_id: str, *, has_begun: Callable[[str], bool]) -> None:
        """Record the run that the Job works on, in place of one that has not begun.

        Args:
            run_id: of the run.
            has_begun: returns whether the run with an id has begun.

        Raises:
            errors.StoppedError: another Pod of the Job has begun another run.
        """

        def change(record: Document) -> None:
            other = record["run_id"]
            if other not in (None, run_id) and has_begun(other):
                raise errors.StoppedError(
                    f"another Pod of this Job has just begun the run {other!r}",
                    remedy="nothing to do: the Job's next Pod continues that run",
                )
            record["run_id"] = run_id

        self._update(change)

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Record this start, and how the block ends. A start without an end was killed.

        Raises:
            errors.DataError: the record is unreadable.
        """
        started, self._started_at = time.monotonic(), log.timestamp()
        attempt: Document = {"node": self._settings.node, "started_at": self._started_at, "ended_at": None}
        self._update(lambda record: record["attempts"].append(attempt))

        def record_end(outcome: Document) -> None:
            seconds = round(time.monotonic() - started, 1)
            end = {"ended_at": log.timestamp(), "seconds": seconds, "gpu_seconds": round(seconds * self.gpus, 1)}
            if not signals.attempt(lambda: self._try_update(self._of_attempt({**end, **outcome})), END_SECONDS):
                log.get().warning("job.end_not_recorded", uri=self._output.uri_of(self._name))

        try:
            yield
        except errors.FinetuneError as error:
            record_end(error.facts)
            raise
        except KeyboardInterrupt:
            record_end({"exit_code": errors.StoppedError.exit_code, "reason": errors.StoppedError.reason})
            raise
        except Exception as error:
            record_end(errors.unexpected(error).facts)
            raise
        record_end({"exit_code": 0})

    def resumed(self, saved_at: str | None) -> None:
        """Record from which checkpoint this start resumes: what was done after it is done again.

        Args:
            saved_at: when it was saved; None: this start begins from scratch.
        """
        self._update(self._of_attempt({"resumed_from": saved_at}))

    def attempts(self) -> list[Document] | None:
        """Return the starts of the Job so far, this one last; None without a Job."""
        return self._read()[0].attempts if self._settings.job_uid else None

    def _of_attempt(self, facts: Document) -> Callable[[Document], None]:
        """Return the change of the record that adds facts to this start's entry."""

        def change(record: Document) -> None:
            mine = (self._settings.node, self._started_at)
            record["attempts"] = [
                {**item, **facts} if (item.get("node"), item.get("started_at")) == mine else item
                for item in record["attempts"]
            ]

        return change

    def _try_update(self, change: Callable[[Document], None]) -> bool:
        try:
            self._update(change)
        except errors.FinetuneError as error:
            log.get().warning("job.end_not_recorded", error=error.message)
        return True

    def _update(self, change: Callable[[Document], None]) -> None:
        """Change the record; read it again if another Pod of the Job has written it meanwhile."""
        if not self._settings.job_uid:
            return
        while True:
            found, generation = self._read()
            record = found.document()
            change(record)
            record["attempts"] = record["attempts"][-MAX_ATTEMPTS:]
            try:
                self._output.write(self._name, documents.encode(record), if_generation_match=generation)
            except storage.PreconditionFailed:
                continue
            return

    def _read(self) -> tuple[documents.Job, int]:
        remedy = "delete it: the Job's next Pod creates it again, and finds the run by its data and settings"
        settings = self._settings
        new = documents.Job(run_id=None, name=settings.job_name, namespace=settings.namespace, image=settings.image)
        return documents.read(self._output, self._name, documents.Job, remedy=remedy) or (new, 0)
