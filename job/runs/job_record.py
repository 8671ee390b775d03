"""``jobs/<uid>.json``: the record of a Kubernetes Job, which outlives its Pods.

It names the run that the Job works on, so that all Pods of the Job continue the run of the first one, and has an entry
for each start: Pod, node, times, exit code and reason, also of starts that ended before there was a run.
"""

from __future__ import annotations

import contextlib
import socket
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

MAX_STOPS = 10
"""Starts in a row that a signal may stop without any saved progress, where the cache is lost with the Pod."""

END_SECONDS = 2.0
"""Time limit for recording the end, which must not delay it: Spot gives a stopped Pod 15 seconds."""


_NOT_REACHED = ""
"""In place of a checkpoint: the start has not looked for one."""


class JobRecord:
    """The record of the Job that this process is a Pod of; without a Job, nothing is recorded.

    Args:
        output: the store of the Job's run.
        settings: names the Job.
        loses_cache: whether the cache is lost with the Pod, so that a start without a new checkpoint leaves nothing.

    Attributes:
        gpus: number of GPUs that this start computes on, of all workers, for its GPU seconds.
    """

    def __init__(self, output: Store, settings: RunSettings, *, loses_cache: bool = False) -> None:
        self.gpus = 0
        self._loses_cache = loses_cache
        self._earlier: list[Document] = []
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
            errors.SettingsError: the last starts were all stopped before they could look for a checkpoint.
        """
        started, self._started_at = time.monotonic(), log.timestamp()
        pod, node = socket.gethostname(), self._settings.node
        attempt: Document = {"pod": pod, "node": node, "started_at": self._started_at, "ended_at": None}

        def begin(record: Document) -> None:
            self._earlier = list(record["attempts"])
            record["attempts"].append(attempt)

        def record_end(outcome: Document) -> None:
            seconds = round(time.monotonic() - started, 1)
            end = {"ended_at": log.timestamp(), "seconds": seconds, "gpu_seconds": round(seconds * self.gpus, 1)}
            if not signals.attempt(lambda: self._try_update(self._of_attempt({**end, **outcome})), END_SECONDS):
                log.get().warning("job.end_not_recorded", uri=self._output.uri_of(self._name))

        self._update(begin)
        with signals.recording(lambda error: record_end(_outcome(error))):
            try:
                self._check_progress(_NOT_REACHED)
                yield
            except errors.FinetuneError as error:
                record_end(_outcome(error))
                raise
            except KeyboardInterrupt:
                record_end(_outcome(signals.stopped_error()))
                raise
            except Exception as error:
                record_end(_outcome(errors.unexpected(error)))
                raise
            record_end({"exit_code": 0})

    def resumed(self, saved_at: str | None) -> None:
        """Record from which checkpoint this start resumes: what was done after it is done again.

        Args:
            saved_at: when it was saved; None: this start begins from scratch.

        Raises:
            errors.SettingsError: the last starts resumed from the same one, and were all stopped by a signal.
        """
        self._update(self._of_attempt({"resumed_from": saved_at}))
        self._check_progress(saved_at)

    def attempts(self) -> list[Document] | None:
        """Return the starts of the Job so far, this one last; None without a Job."""
        return self._read()[0].attempts if self._settings.job_uid else None

    def failure(self) -> errors.FinetuneError | None:
        """Return the error that the newest start ended with, for the Job's other workers.

        None without one, or if a further start may succeed. Starts are those of worker 0.
        """
        facts = (self.attempts() or [{}])[-1]
        for kind in errors.all_errors():
            if kind.reason == facts.get("reason") and kind.job_action == "FailJob":
                return kind(f"worker 0 has ended: {facts.get('message')}", remedy=str(facts.get("remedy")))
        return None

    def _check_progress(self, resumed_from: str | None) -> None:
        """Raise an error if a further start would most likely be stopped at the same place.

        The kubelet's eviction for local disk looks to the process like any other stop, and comes again in each Pod.

        Args:
            resumed_from: of this start.
        """
        last = self._earlier[-MAX_STOPS:]
        without_progress = (
            "signal" in item and item.get("resumed_from", resumed_from) == resumed_from for item in last
        )
        if not self._loses_cache or len(last) < MAX_STOPS or not all(without_progress):
            return
        raise errors.SettingsError(
            f"the last {MAX_STOPS} starts of this Job were each stopped by a signal, and none of them saved progress",
            remedy="finetune watch reports how each Pod ended. If they were evicted for local disk, raise "
            "cache.sizeLimit or resources.limits.ephemeral-storage, or limit what else writes there (sidecars, other "
            "volumes); then delete the Job and create it again: its record begins with it",
        )

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


def _outcome(error: errors.FinetuneError) -> Document:
    """Return the facts of an end, with the signal that stopped the process, if one did."""
    signal = signals.received() if isinstance(error, errors.StoppedError) else None
    return {**error.facts, **({"signal": signal} if signal else {})}
