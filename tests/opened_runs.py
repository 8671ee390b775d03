"""Runs as a start of the job opens them, with the defaults that most tests need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from job import storage
from job.runs import run as runs
from job.runs.identity import identify
from job.runs.job_record import JobRecord
from job.runtime.timing import Timing

if TYPE_CHECKING:
    from job.config.load import Loaded
    from job.config.settings import Settings
    from job.runs.checkpoints import Checkpoints
    from job.runs.identity import Identity
    from job.storage import Store


def open_run(output: Store, loaded: Loaded, identity: Identity) -> runs.Run:
    """Return the run of these settings and data."""
    return runs.open_run(output, loaded, identity, JobRecord(output, loaded.settings.run))


def pinned_run(output: Store, settings: Settings) -> runs.Run | None:
    """Return the run that the Job has begun."""
    return runs.pinned_run(output, settings, JobRecord(output, settings.run))


def checkpoints_of(run: runs.Run, settings: Settings) -> Checkpoints:
    """Return the run's checkpoints, for a start that has not listed the data."""
    return run.checkpoints(settings, identify(settings, storage.open_store), Timing())
