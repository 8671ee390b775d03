"""Finds the run to watch where an output is named: the one that reported last."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from job import uri

if TYPE_CHECKING:
    from job.storage import Store

_THREADS = 16  # of requests about runs


def find_run(location: str) -> Path | None:
    """Return the folder of a run on this machine: the location itself, or the run below it that reported last.

    None: there is none, or it is the location of a bucket.

    Raises:
        ValueError: the text is neither a URI nor a path.
    """
    found = uri.parse(location)
    if found.scheme != "file":
        return None
    folder = Path(found.path)
    reports = [*folder.glob("status.json")] or [*folder.glob("runs/*/status.json")]
    return max(reports, key=lambda report: report.stat().st_mtime_ns).parent if reports else None


def newest_run(output: Store) -> str | None:
    """Return the ID of the run of an output that reported last; None if there is none.

    Takes a listing and a request for each run.
    """
    runs = output.folders("runs")
    with ThreadPoolExecutor(_THREADS) as pool:
        times = pool.map(lambda run: output.updated(f"runs/{run}/status.json"), runs)
        reported = [(updated, run) for run, updated in zip(runs, times, strict=True) if updated is not None]
    return max(reported)[1] if reported else None
