"""A run as a worker other than worker 0 sees it: it reads the output, and never writes to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from job.runs import publish
from job.runs.checkpoints import Checkpoints, read_index
from job.runs.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.config.settings import GateSettings
    from job.observability.progress import Progress
    from job.runs.data import Data
    from job.runs.job_record import JobRecord
    from job.runs.publish import Outcome
    from job.storage import Store
    from job.training.state import TrainingState


class FollowedCheckpoints(Checkpoints):
    """The checkpoints of a run that worker 0 has claimed. Nothing is saved here: do not use it as a context manager."""

    def save(self, capture: Callable[[], TrainingState], *, now: bool, wait: bool) -> None:
        """Save nothing."""

    def newest_data(self) -> Data | None:
        """Return the data that worker 0 has saved; None if there are none since the last call, or they are damaged."""
        previous, saved = self._data, self._newer()
        if saved is None:
            return None
        self._data = saved
        if (data := self.load_data()) is None:
            self._data = previous  # perhaps damaged in transit: the next call reads them again
        return data

    def has_new_data(self) -> bool:
        """Whether worker 0 has saved the data since the last call of `newest_data`."""
        return self._newer() is not None

    def _newer(self) -> Any:
        """Return what the index has about the data, if they are of this run and newer than those that were read."""
        previous, saved = self._data, self._read_index()[0]["data"]
        if saved is None or not self._is_usable(saved) or (previous and previous["name"] == saved["name"]):
            return None
        return saved


class FollowedRun:
    """The run of this worker's Job, looked at again and again.

    Args:
        output: the store.
        gate: that the run's metrics are judged by.
        job: names the run.
        progress: receives ``workers.following`` each time that worker 0 has renewed its claim, so that a long wait for
            it is not taken for a stall.
    """

    def __init__(self, output: Store, gate: GateSettings, job: JobRecord, progress: Progress) -> None:
        self._output = output
        self._gate = gate
        self._job = job
        self._progress = progress
        self._generation = 0

    def outcome(self) -> tuple[Run, Outcome] | None:
        """Return the run and its outcome if it is published; None if worker 0 works on it, or is to be started again.

        Raises:
            errors.FinetuneError: worker 0 has ended with an error that a further start would not change.
        """
        if (failure := self._job.failure()) is not None:
            raise failure
        if (run_id := self._job.run_id()) is None:
            return None
        run = Run(self._output, run_id)
        if (outcome := publish.completed(run, self._gate)) is not None:
            return run, outcome
        generation = read_index(self._output, f"{run.prefix}/checkpoints")[1]
        if generation != self._generation:
            self._generation = generation
            self._progress.event("workers.following", severity="debug", run_uri=run.uri)
        return None
