"""What every phase of a run needs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from job import errors, storage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from job.config.load import Loaded
    from job.observability.progress import Progress
    from job.runs.checkpoints import Checkpoints
    from job.runs.job_record import JobRecord
    from job.runs.run import Run
    from job.runtime.cluster import Peers
    from job.runtime.timing import Part, Timing
    from job.storage import OpenStore
    from job.training.strategy import Replicas


class RunContext(NamedTuple):
    """What every phase of a run needs.

    Attributes:
        loaded: the settings and their origins.
        run: the run.
        job: the record of the Kubernetes Job.
        checkpoints: its checkpoints; this process holds the claim.
        open_store: opens every store of the run.
        retry: the policy of all of them.
        timing: measures the seconds of each phase.
        progress: receives the events.
        replicas: that train together; None: a single device, and before the device is configured.
        peers: the run's other workers; None without, and before they have met.
    """

    loaded: Loaded
    run: Run
    job: JobRecord
    checkpoints: Checkpoints
    open_store: OpenStore
    retry: storage.RetryPolicy
    timing: Timing
    progress: Progress
    replicas: Replicas | None = None
    peers: Peers | None = None

    def check(self) -> None:
        """Raise an error if this process must not continue: call it often in work that takes long.

        Raises:
            errors.StoppedError: another process has taken the run over.
            errors.AccessError, errors.UnavailableError: the claim could not be renewed, or a state not be saved.
            errors.PeerLostError: another worker has ended.
        """
        self.checkpoints.check()
        if self.peers is not None:
            self.peers.check()

    @property
    def workers(self) -> Replicas | None:
        """The replicas, if those of several workers train together."""
        return None if self.peers is None else self.replicas

    def wait_for_workers(self) -> None:
        """Wait until all other workers reach this point. A run of one worker does not wait."""
        if self.workers is not None:
            self.workers.wait(self.check, self.progress)

    @contextlib.contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Measure a part of the run that has nothing to count, and show that it is in progress."""
        with self.timing.part(name), self.progress.phase(name, None, ""):
            yield


@contextlib.contextmanager
def optional(progress: Progress, part: str, remedy: str = "") -> Iterator[None]:
    """Let the failure of a block cost a part of the report, not the run.

    Args:
        progress: receives the warning.
        part: what is missing if it fails.
        remedy: how to get it afterwards.

    Raises:
        errors.StoppedError, errors.AccessError, errors.UnavailableError: what comes after the block would fail, too.
    """
    try:
        yield
    except (errors.StoppedError, errors.AccessError, errors.UnavailableError):
        raise
    except Exception as error:  # noqa: BLE001  # even a bug here must not cost the trained model
        facts = {"part": part, "error": f"{type(error).__name__}: {error}"} | ({"remedy": remedy} if remedy else {})
        progress.event("report.part_failed", severity="warning", **facts)
