"""Selects the runs of an output that may be deleted. Nothing is written here; see job/runs/deletion.py."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from job.errors import DataError
from job.runs import documents
from job.runs.inventory import RUNS, THREADS, Inventory, ListedRun, parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from job.observability.progress import Progress
    from job.runs.documents import Document, Index
    from job.storage import Entry, Store

CLAIM_SECONDS = 3600.0
"""A claim that was renewed within this time counts as held. It is renewed four times within `checkpoint.takeover`, by
default every 45 seconds; the rest is for clocks that differ."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which runs may be deleted. A condition that is None holds for every run; of both, both must hold.

    Attributes:
        keep: the newest published runs to keep, at least 1.
        older_than: since a run was published, or an unfinished run changed last.
        unfinished: include unfinished runs; it needs `older_than`, since they may be resumed.
    """

    keep: int | None = None
    older_than: dt.timedelta | None = None
    unfinished: bool = False


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A run to delete, as it was when it was selected.

    Attributes:
        run: as listed.
        at: when it was published, or changed last.
        entries: full name -> size and generation of its objects.
        index: the index of its checkpoints, as stored; None if there is none.
    """

    run: ListedRun
    at: dt.datetime
    entries: Mapping[str, Entry]
    index: bytes | None

    @property
    def bytes(self) -> int:
        """The size of all its objects."""
        return sum(entry.size for entry in self.entries.values())

    def generation(self, name: str) -> int:
        """Return the generation of one of its files; 0: it has none of this name."""
        entry = self.entries.get(f"{RUNS}/{self.run.run_id}/{name}")
        return entry.generation if entry else 0

    def document(self) -> Document:
        """Return it as plain JSON."""
        return {
            "run_id": self.run.run_id,
            "state": self.run.state,
            "at": self.at.isoformat(),
            "bytes": self.bytes,
            "objects": len(self.entries),
        }


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The outcome of a rule.

    Attributes:
        candidates: the runs to delete, the oldest first.
        kept: ID -> why a run is kept.
    """

    candidates: tuple[Candidate, ...]
    kept: dict[str, str]


def select(
    output: Store, inventory: Inventory, rule: Rule, progress: Progress, *, takeover: float, now: dt.datetime
) -> Selection:
    """Return the runs that a rule allows to delete, never one that is needed, under way, or unreadable.

    Args:
        output: the store.
        inventory: of the output.
        rule: which runs.
        progress: receives the events.
        takeover: seconds after which the claim of a process expires, where that is more than `CLAIM_SECONDS`.
        now: the current time.

    Raises:
        errors.DataError: ``latest.json`` is unreadable, so that the run it names is unknown.
    """
    if inventory.latest_problem:
        raise DataError(
            f"{inventory.latest_problem}; the run that it names must not be deleted",
            remedy="finetune runs promote RUN --why TEXT writes it again",
        )
    kept, selected = {}, []
    newest = [run.run_id for run in inventory.runs if run.state == "published"]
    rank = {run_id: number for number, run_id in enumerate(newest)}
    for run in inventory.runs:
        reason = _needed(run) or _outside(run, rule, rank.get(run.run_id), now)
        if reason:
            kept[run.run_id] = reason
        else:
            selected.append(run)

    def examine(run: ListedRun) -> Candidate | str:
        return _examine(output, run, rule, claim_seconds=max(CLAIM_SECONDS, takeover), now=now)

    candidates = []
    with progress.phase("examine", len(selected), "runs") as phase, ThreadPoolExecutor(THREADS, "runs") as pool:
        for run, found in zip(selected, pool.map(examine, selected), strict=True):
            if isinstance(found, Candidate):
                candidates.append(found)
            else:
                kept[run.run_id] = found
            phase.advance()
    return Selection(candidates=tuple(sorted(candidates, key=lambda one: one.at)), kept=kept)


def _needed(run: ListedRun) -> str:
    """Return why a run is kept under every rule; empty if it is not."""
    if run.is_latest:
        return "latest.json names it"
    if run.state == "unreadable":
        return run.detail
    return "it is under way" if run.state == "running" else ""


def _outside(run: ListedRun, rule: Rule, rank: int | None, now: dt.datetime) -> str:
    """Return why a run does not match the rule, as far as the inventory shows it.

    Args:
        run: the run.
        rule: the rule.
        rank: of a published run, from 0 for the newest.
        now: the current time.
    """
    if rank is None:
        return ""  # unfinished: its documents decide
    if rank == 0:
        return "it is the newest published run"
    if rank < (rule.keep or 0):
        return f"it is among the {rule.keep} newest"
    return _too_young(run.at, rule, now)


def _too_young(at: dt.datetime | None, rule: Rule, now: dt.datetime) -> str:
    if at is None:
        return "its age is unknown"
    return "it is too young" if rule.older_than is not None and now - at < rule.older_than else ""


def _examine(output: Store, run: ListedRun, rule: Rule, *, claim_seconds: float, now: dt.datetime) -> Candidate | str:
    """Return the candidate, or why the run is kept."""
    prefix = f"{RUNS}/{run.run_id}"
    entries = output.entries(prefix)
    found = output.read(f"{prefix}/checkpoints/index.json")
    try:
        index = documents.parse(found[0], documents.Index) if found else documents.Index()
    except documents.UnreadableError as error:
        return f"checkpoints/index.json is unreadable: {error}"
    if _is_claimed(index, claim_seconds, now):
        return "it is under way"
    at = run.at
    if run.state != "published":
        times = (at, *(_updated(output, f"{prefix}/{name}") for name in ("config.json", "checkpoints/index.json")))
        at = max((time for time in times if time is not None), default=None)
        if reason := "" if index.pruning else _unfinished(at, rule, now):
            return reason
        at = at or now
    assert at is not None
    return Candidate(run=run, at=at, entries=entries, index=found[0] if found else None)


def _unfinished(at: dt.datetime | None, rule: Rule, now: dt.datetime) -> str:
    """Return why an unfinished run is kept; empty if it may be deleted."""
    if not rule.unfinished or rule.older_than is None:
        return "it is unfinished, and can be resumed"
    return _too_young(at, rule, now)


def _is_claimed(index: Index, claim_seconds: float, now: dt.datetime) -> bool:
    """Return whether a process holds the run, or may: a claim without a time counts as held."""
    if index.claim is None or index.claim.released:
        return False
    renewed = parse_time(index.claim.document().get("renewed_at"))
    return renewed is None or (now - renewed).total_seconds() < claim_seconds


def _updated(output: Store, name: str) -> dt.datetime | None:
    seconds = output.updated(name)
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC)
