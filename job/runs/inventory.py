"""All runs of an output: one listing of the folders below ``runs/``, and one read of each published run.

``_SUCCESS`` has the overview of a published run. A run without it is unfinished: status.json has its progress.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from job.config.settings import NAME_PATTERN
from job.errors import DataError
from job.observability import log
from job.runs import documents, overview
from job.storage.parallel import CONNECTIONS

if TYPE_CHECKING:
    from job.observability.progress import Progress
    from job.runs.documents import Document, Latest, Overview
    from job.storage import Store

RUNS = "runs"

THREADS = CONNECTIONS
"""Runs that are read at once: a request to a bucket is mostly waiting."""

SILENT_SECONDS = 600.0
"""A run whose status.json is older than this is not running, although it says so: its process was killed."""

State: TypeAlias = Literal["published", "running", "stopped", "failed", "interrupted", "incomplete", "unreadable"]


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """A run of an output.

    Attributes:
        run_id: its name.
        state: ``published``; of an unfinished run that of its status.json, ``interrupted`` if nothing was reported for
            `SILENT_SECONDS`, ``incomplete`` if it has no status.json; ``unreadable``: `detail` has the reason.
        overview: of a published run.
        status: status.json of an unfinished run.
        detail: why it is unreadable.
        is_latest: latest.json names it.
        is_pinned: and no publication moves latest.json.
    """

    run_id: str
    state: State
    overview: Overview | None = None
    status: Document = field(default_factory=dict)
    detail: str = ""
    is_latest: bool = False
    is_pinned: bool = False

    @property
    def at(self) -> dt.datetime | None:
        """When it was published, or reported last; None if that is unknown."""
        return parse_time(self.overview.published_at if self.overview else self.status.get("updated_at"))

    def gpu_hours(self) -> float | None:
        """Return the hours of its GPUs; None if they are unknown."""
        seconds = self.overview.gpu_seconds if self.overview else None
        return None if seconds is None else seconds / 3600

    def cost(self, gpu_hour_price: float | None) -> float | None:
        """Return the price of its GPU hours; None if price or hours are unknown."""
        hours = self.gpu_hours()
        return None if gpu_hour_price is None or hours is None else hours * gpu_hour_price

    def document(self, gpu_hour_price: float | None = None) -> Document:
        """Return the run as plain JSON."""
        return {
            "run_id": self.run_id,
            "state": self.state,
            "latest": self.is_latest,
            "pinned": self.is_pinned,
            "overview": self.overview and self.overview.document(),
            "gpu_hours": self.gpu_hours(),
            "cost": self.cost(gpu_hour_price),
            "status": self.status or None,
            "detail": self.detail or None,
        }


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """The runs of an output, the newest first, and ``latest.json``.

    Attributes:
        output_uri: of the output.
        runs: published or not.
        latest: None if it does not exist or is unreadable.
        latest_problem: why it is unreadable; empty if it is not.
    """

    output_uri: str
    runs: tuple[ListedRun, ...]
    latest: Latest | None
    latest_problem: str = ""


def parse_time(text: Any) -> dt.datetime | None:
    """Return an RFC 3339 time; None if it is none, or without a time zone."""
    try:
        parsed = dt.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return parsed if parsed.tzinfo else None


def read_inventory(output: Store, progress: Progress, *, now: dt.datetime | None = None) -> Inventory:
    """Return all runs of an output.

    Args:
        output: the store.
        progress: receives the events.
        now: of the comparison with `SILENT_SECONDS`; default: the current time.

    Raises:
        errors.DataError: there is nothing that an output has.
        errors.AccessError: the store denies access.
        errors.UnavailableError: it does not respond, after all retries.
    """
    names = output.folders(RUNS)
    latest, problem = read_pointer(output)
    if not names and latest is None and not problem:
        raise DataError(
            f"{output.uri} is no output: it has neither runs/ nor latest.json",
            remedy="give the output.uri of the runs, the folder or prefix above runs/",
        )
    read = partial(read_run, output, latest=latest, now=now)
    runs = []
    with progress.phase("read", len(names), "runs") as phase, ThreadPoolExecutor(THREADS, "runs") as pool:
        for run in pool.map(read, names):
            runs.append(run)
            phase.advance()
    oldest = dt.datetime.min.replace(tzinfo=dt.UTC)
    runs.sort(key=lambda run: (run.at or oldest, run.run_id), reverse=True)
    return Inventory(output_uri=output.uri, runs=tuple(runs), latest=latest, latest_problem=problem)


def read_pointer(output: Store) -> tuple[Latest | None, str]:
    """Return ``latest.json``, and why it is unreadable."""
    found = output.read("latest.json")
    try:
        return (documents.parse(found[0], documents.Latest) if found else None), ""
    except documents.UnreadableError as error:
        return None, f"{output.uri_of('latest.json')} is unreadable: {error}"


def read_run(output: Store, run_id: str, *, latest: Latest | None, now: dt.datetime | None = None) -> ListedRun:
    """Return a run of an output.

    Args:
        output: the store.
        run_id: of the run.
        latest: ``latest.json``.
        now: see `read_inventory`.
    """
    is_latest = latest is not None and latest.run_id == run_id
    new = partial(ListedRun, run_id=run_id, is_latest=is_latest, is_pinned=bool(is_latest and latest and latest.pinned))
    if not re.fullmatch(NAME_PATTERN, run_id):
        return new(state="unreadable", detail="its name is not the ID of a run")
    read_file = partial(_read_file, output, f"{RUNS}/{run_id}")
    if (data := read_file("_SUCCESS")) is not None:
        try:
            success = documents.parse(data, documents.Success)
        except documents.UnreadableError as error:
            return new(state="unreadable", detail=f"_SUCCESS is unreadable: {error}")
        if (found := success.overview or overview.read(read_file, success.manifest_sha256)) is None:
            return new(state="unreadable", detail="manifest.json is not the one that _SUCCESS names")
        if found.run_id != run_id or parse_time(found.published_at) is None:
            detail = f"it was published as {found.run_id} at {found.published_at}: it is a copy, or damaged"
            return new(state="unreadable", detail=detail)
        return new(state="published", overview=found)
    return _unfinished(read_file("status.json"), new, now or dt.datetime.now(dt.UTC))


def _unfinished(data: bytes | None, new: partial[ListedRun], now: dt.datetime) -> ListedRun:
    if data is None:
        return new(state="incomplete")
    try:
        status = json.loads(data)
        state, updated = status["state"], parse_time(status.get("updated_at"))
    except (ValueError, KeyError, TypeError) as error:
        return new(state="unreadable", detail=f"status.json is unreadable: {error!r}")
    is_silent = updated is None or (now - updated).total_seconds() > SILENT_SECONDS
    # "succeeded" without _SUCCESS: a deletion that was interrupted.
    states: dict[str, State] = {"running": "interrupted" if is_silent else "running"}
    states |= {"stopped": "stopped", "failed": "failed"}
    plain = log.plain(status)
    assert isinstance(plain, dict)
    return new(state=states.get(state, "incomplete"), status=plain)


def _read_file(output: Store, prefix: str, name: str) -> bytes | None:
    found = output.read(f"{prefix}/{name}")
    return found[0] if found else None
