"""Follows a Job in a cluster, or a run by its URI, until it ends.

A Job is followed through its Pods' logs and the API server's objects, a run through its status.json. The job need not
cooperate.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from job.errors import DataError, StoppedError, UnavailableError, all_errors
from job.observability import log
from job.observability.bars import Bars
from job.observability.console import ConsoleListener
from job.observability.progress import LogListener
from job.watch.api_reader import Cluster
from job.watch.job_follower import JobFollower
from job.watch.newest_run import find_run, newest_run
from job.watch.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.observability.progress import Listener


INTERRUPTED = 130
"""The exit code after Ctrl-C, as in shells. It has no effect on the run."""

MAX_SILENCE = 900.0
"""Seconds without news of a run after which watching gives up; a Job's back-off between two Pods is at most 600."""

QUIET = 60.0
"""Seconds without news after which watching reports that it waits; after a stop it does so at once."""

_STATUS_INTERVAL = 5.0  # seconds between two polls of status.json, which is not written more often


@dataclass(frozen=True)
class Target:
    """The Job or run to watch.

    Attributes:
        name: of a Job; or a run's URI or folder.
        namespace: of the Job; None: the context's.
        context: of the kubeconfig; None: the current one.
        is_run: whether the name is a run's.
    """

    name: str
    namespace: str | None = None
    context: str | None = None
    is_run: bool = False


def follow(target: Target) -> int:
    """Follow the target until it ends.

    Returns:
        Its exit code.

    Raises:
        FinetuneError: the target cannot be followed.
    """
    terminal = log.terminal()
    listeners: list[Listener] = [ConsoleListener(None) if terminal else LogListener(0.0)]
    if terminal:
        listeners.append(Bars(terminal))
    replay = Replay(listeners, phases=terminal is not None)
    try:
        if target.is_run:
            return _follow_run(target.name, replay)
        return JobFollower(Cluster(target.namespace, target.context), target.name, replay).follow()
    except KeyboardInterrupt:
        # note: whether the run continues is not known here
        replay.progress.event("watch.interrupted", message="no longer watching; this has no effect on the run")
        return INTERRUPTED
    finally:
        replay.close()


def _follow_run(
    location: str,
    replay: Replay,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> int:
    from job import storage

    store = storage.open_store(str(find_run(location) or location))
    if store.stat("status.json") is None and (run := newest_run(store)):
        store = storage.open_store(store.uri_of(f"runs/{run}"))
        replay.progress.event("watch.run_found", run_uri=store.uri)
    codes = {error.reason: error.exit_code for error in all_errors()}
    last, changed, is_waiting = b"", clock(), False
    while True:
        if (found := store.read("status.json")) is None:
            raise DataError(
                f"there is no run at {store.uri}: neither status.json nor runs/ID/status.json",
                remedy="give the URI of a run, which ends in /runs/ID, or that of an output.uri, for its newest run",
            )
        if found[0] != last:
            last, changed, is_waiting = found[0], clock(), False
            status = json.loads(last)
            replay.status(status)
            if status["state"] == "succeeded":
                return 0
            if status["state"] == "failed":
                return codes.get(status.get("reason"), 1)
        silence, stopped = clock() - changed, status["state"] == "stopped"
        if silence > MAX_SILENCE:
            replay.progress.event("run.silent", severity="warning", seconds=round(MAX_SILENCE))
            return StoppedError.exit_code if stopped else UnavailableError.exit_code
        if not is_waiting and (stopped or silence >= QUIET):
            is_waiting = True
            reason = "the run has stopped" if stopped else f"no news for {QUIET:g} seconds"
            limit = f"{MAX_SILENCE / 60:g} minutes"
            replay.progress.event("watch.waiting", message=f"{reason}: waiting up to {limit} for it to continue")
        sleep(_STATUS_INTERVAL)
