"""Carries out checks, each within a time limit, so that one that hangs neither delays nor hides the others.

The checks of a group run in order, in a thread of their own: they depend on one another. All groups run at once.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from job.errors import FinetuneError, UnavailableError, exit_codes, unexpected
from job.runtime import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Verdict = Literal["ok", "warning", "failed", "skipped"]

CLEAN_UP_SECONDS = 2.0
"""Twice this, for the thread to end and then for cleaning up in its place, is less than `signals.GRACE_SECONDS`."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        verdict: `failed`: a run with these settings would fail; `warning`: it may, or something is odd.
        detail: what was found.
        remedy: what to do about it; if skipped, what is missing for the check. May be empty.
        exit_code: of the error; 0 unless failed.
    """

    verdict: Verdict
    detail: str
    remedy: str = ""
    exit_code: int = 0


def failed(error: FinetuneError) -> Finding:
    """Return the finding that reports an error."""
    return Finding("failed", error.message, error.remedy, error.exit_code)


class Check(NamedTuple):
    """One check.

    Attributes:
        name: for the report.
        examine: carries it out; returns what is in order as text, or another finding. A FinetuneError fails the check.
        if_hanging: the remedy if it does not end in time.
        seconds: time limit; None: that of all checks.
    """

    name: str
    examine: Callable[[], str | Finding]
    if_hanging: str = "See why it hangs, then try again."
    seconds: float | None = None


class Group(NamedTuple):
    """Checks that depend on one another.

    Attributes:
        checks: in order. If one of them hangs, the later ones are skipped.
        clean_up: called after the checks, also if they hang or are interrupted; then it may run in another thread while
            a check is still running. It raises nothing.
    """

    checks: Sequence[Check]
    clean_up: Callable[[], object] = int


def carry_out(groups: Iterable[Group], seconds: float, report: Callable[[str, Finding], object]) -> list[Finding]:
    """Carry out all checks, and return their findings.

    Args:
        groups: run at the same time.
        seconds: time limit of each check.
        report: receives each check's name and finding, in the order of the groups, as soon as it is known.
    """
    workers = [_Worker(group, seconds) for group in groups]
    findings = []
    try:
        for worker in workers:
            for name, finding in worker.results():
                findings.append(finding)
                report(name, finding)
    finally:
        _stop(workers)
    return findings


def worst(findings: Iterable[Finding]) -> int:
    """Return the exit code of the worst failure; 0 if nothing failed.

    Failures that every retry repeats (2, 3, 5) are worse than those that another try may not have (1, 4, 20). Among
    each, the lowest code counts: wrong settings explain other failures.
    """
    actions = exit_codes()
    codes = {finding.exit_code for finding in findings if finding.verdict == "failed"}
    return min(codes, key=lambda code: (actions[code][1] != "FailJob", code), default=0)


class _Worker:
    """Runs the checks of a group in a thread."""

    def __init__(self, group: Group, seconds: float) -> None:
        self._group = group
        self._seconds = seconds
        self._findings: queue.SimpleQueue[Finding] = queue.SimpleQueue()
        self._started = time.monotonic()  # the running check
        self._closed = threading.Event()
        self._hangs = False
        self._thread = threading.Thread(target=self._work, name=group.checks[0].name, daemon=True)
        self._thread.start()

    def results(self) -> Iterator[tuple[str, Finding]]:
        """Yield the name and finding of each check."""
        for number, check in enumerate(self._group.checks):
            limit = check.seconds or self._seconds
            finding = self._wait(limit)
            yield (
                check.name,
                finding or failed(UnavailableError(f"no answer within {limit:g} s", remedy=check.if_hanging)),
            )
            if finding is None:
                self._hangs = True
                for later in self._group.checks[number + 1 :]:
                    yield later.name, Finding("skipped", f"not tried: {check.name!r} did not end")
                return

    def close(self, seconds: float) -> bool:
        """Stop after the running check, and return whether that and the cleaning up end within `seconds`."""
        self._closed.set()
        self._thread.join(0.0 if self._hangs else seconds)
        return not self._thread.is_alive()

    def clean_up(self) -> None:
        """Clean up while a check hangs."""
        self._group.clean_up()

    def _work(self) -> None:
        try:
            for check in self._group.checks:
                if self._closed.is_set():
                    return
                finding = _examine(check)
                self._started = time.monotonic()  # note: before the finding is seen, after which the next one is timed
                self._findings.put(finding)
        finally:
            self._group.clean_up()

    def _wait(self, limit: float) -> Finding | None:
        """Return the next finding; None if the running check takes longer than `limit` seconds."""
        while True:
            started = self._started
            try:
                return self._findings.get(timeout=max(0.0, started + limit - time.monotonic()))
            except queue.Empty:
                if started == self._started:
                    return None


def _examine(check: Check) -> Finding:
    try:
        found = check.examine()
    except FinetuneError as error:
        return failed(error)
    except Exception as error:  # noqa: BLE001  # a bug in one check must not hide the others
        return failed(unexpected(error))
    return Finding("ok", found) if isinstance(found, str) else found


def _stop(workers: Sequence[_Worker]) -> None:
    """Let all workers end and clean up; clean up for those that hang."""
    deadline = time.monotonic() + CLEAN_UP_SECONDS
    hanging = [worker for worker in workers if not worker.close(max(0.0, deadline - time.monotonic()))]
    if hanging:
        signals.leave_threads()
        signals.attempt(lambda: _clean_up(hanging), CLEAN_UP_SECONDS)


def _clean_up(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.clean_up()
