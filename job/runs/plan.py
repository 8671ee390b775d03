"""What a start of a run would find to do. Only reads: for a start of the job costs a GPU, and this does not."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from job.runs import publish
from job.runs.claim import Claimant
from job.runs.run import run_of

if TYPE_CHECKING:
    from job.config.settings import Settings
    from job.runs.documents import Document
    from job.runs.identity import Identity
    from job.runs.run import Run
    from job.storage import Store

State = Literal["new", "unfinished", "under_way", "published"]
"""Of a run, as a new start would find it."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a start would find to do.

    Attributes:
        run_id: of the run of these settings and data.
        run_uri: where it is, or will be.
        state: of the run.
        holder: who works on it; None unless it is under way.
        published_at: RFC 3339, UTC; None unless it is published.
        gate_passed: its gate, judged by these settings; None unless it is published.
    """

    run_id: str
    run_uri: str
    state: State
    holder: str | None = None
    published_at: str | None = None
    gate_passed: bool | None = None

    @property
    def is_work(self) -> bool:
        """Whether a start would train, or complete a publication."""
        return self.state in ("new", "unfinished")

    @property
    def message(self) -> str:
        """A sentence, for people."""
        match self.state:
            case "new":
                return f"work: {self.run_uri} is a new run"
            case "unfinished":
                return f"work: {self.run_uri} is unfinished, a start resumes it"
            case "under_way":
                return f"nothing to do: {self.holder} works on {self.run_uri}"
            case "published":
                below = "" if self.gate_passed else ", below its gate"
                return f"nothing to do: {self.run_uri} was published on {self.published_at:.10}{below}"

    def document(self) -> Document:
        """Return the plan as plain JSON."""
        return {"work": self.is_work, **dataclasses.asdict(self)}


def plan(output: Store, settings: Settings, identity: Identity) -> Plan:
    """Return what a start with these settings on these data would find to do.

    Args:
        output: the store of the run.
        settings: of the start.
        identity: of the settings and the data.

    Raises:
        errors.SettingsError: run.id belongs to another run.
        errors.DataError: config.json or manifest.json is unreadable.
    """
    run = run_of(output, settings, identity)
    run.check_identity(settings, identity)
    if outcome := publish.completed(run, settings.gate):
        return Plan(
            run_id=run.id,
            run_uri=run.uri,
            state="published",
            published_at=outcome.published_at,
            gate_passed=outcome.gate.passed,
        )
    if holder := _holder(run, settings.checkpoint.takeover):
        return Plan(run_id=run.id, run_uri=run.uri, state="under_way", holder=holder)
    return Plan(run_id=run.id, run_uri=run.uri, state="unfinished" if run.has_begun() else "new")


def _holder(run: Run, takeover: float) -> str | None:
    """Return who works on a run; None if nobody does, or has not renewed the claim for `takeover` seconds."""
    written = run.output.updated(f"{run.prefix}/checkpoints/index.json")
    if written is None:
        return None
    claim = run.index().claim
    # note: owner "" is this process, so that every Job's claim is another's
    claimant = Claimant(owner="", takeover_seconds=takeover)
    return claimant.find_holder(claim.document() if claim else None, time.time() - written)
