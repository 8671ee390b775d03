"""Points ``latest.json`` to a published run by hand: a rollback, or the release of a run that was held back."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
from typing import TYPE_CHECKING

from job import storage
from job.errors import DataError, StoppedError
from job.runs import documents
from job.runs.latest import pointer, read_latest
from job.runs.verification import verify

if TYPE_CHECKING:
    from job.observability.progress import Progress
    from job.runs.named_run import NamedRun
    from job.storage import Store

LATEST = "latest.json"


def current_user() -> str:
    """Return who runs this process: USER@HOST, the user by number if it has no name."""
    user = os.geteuid()
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        name = str(user)
    return f"{name}@{socket.gethostname()}"


def promote(run: NamedRun, progress: Progress, *, by: str, why: str, pinned: bool | None = None) -> documents.Latest:
    """Point ``latest.json`` to a run, after every file of the run was compared with its checksum.

    Only the generation of ``latest.json`` that was read before is replaced.

    Args:
        run: the run.
        progress: receives the events.
        by: who promotes it.
        why: the reason.
        pinned: whether later publications leave ``latest.json`` alone; None: as it is now.

    Returns:
        The written ``latest.json``.

    Raises:
        errors.DataError: the run is not published, not whole, or was deleted meanwhile.
        errors.StoppedError: ``latest.json`` was moved meanwhile, and is left so.
    """
    before, found = run.output.read(LATEST) or (None, None)
    manifest = _verified_manifest(run, progress)
    is_pinned = _is_pinned(before) if pinned is None else pinned
    document = pointer(run.store.uri, manifest, manifest.gate, by=by, why=why, pinned=is_pinned)
    try:
        written = run.output.write(LATEST, document, if_generation_match=found.generation if found else 0)
    except storage.PreconditionFailed:
        raise _moved(run, read_latest(run.output)[0]) from None
    # A deletion removes _SUCCESS first and reads latest.json then: one of both sees the other.
    if run.store.stat("_SUCCESS") is None:
        _undo(run.output, before, written.generation)
        raise DataError(
            f"{run.store.uri} was deleted while it was promoted; {LATEST} is as it was",
            remedy="promote another run",
        )
    return documents.parse(document, documents.Latest)


def _verified_manifest(run: NamedRun, progress: Progress) -> documents.PublishedManifest:
    if run.store.stat("_SUCCESS") is None:
        raise DataError(
            f"{run.store.uri} is not published: it has no _SUCCESS", remedy="promote a run that has one; see runs list"
        )
    verify(run.store, progress).check()
    found = documents.read(run.store, "manifest.json", documents.PublishedManifest, remedy="promote another run")
    if found is None or found[0].run_id != run.run_id:
        raise DataError(
            f"{run.store.uri} was published as {found[0].run_id if found else 'nothing'!r}: it is a copy",
            remedy="promote the run itself; a run in another folder has another ID",
        )
    return found[0]


def _is_pinned(latest: bytes | None) -> bool:
    """Return whether a ``latest.json`` is pinned; one that is unreadable is not: any publication replaces it."""
    with contextlib.suppress(documents.UnreadableError):
        return latest is not None and documents.parse(latest, documents.Latest).pinned
    return False


def _moved(run: NamedRun, current: documents.Latest | None) -> StoppedError:
    named = current.run_id if current else "no readable run"
    return StoppedError(
        f"{run.output.uri_of(LATEST)} was moved meanwhile; it names {named}, and is left so",
        remedy="see who moved it, and why: finetune runs list; then promote again",
    )


def _undo(output: Store, before: bytes | None, generation: int) -> None:
    """Put the former ``latest.json`` back, unless it was moved again."""
    with contextlib.suppress(storage.PreconditionFailed):
        if before is None:
            output.delete(LATEST, if_generation_match=generation)
        else:
            output.write(LATEST, before, if_generation_match=generation)
