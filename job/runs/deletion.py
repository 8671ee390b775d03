"""Deletes a run, so that at no moment a reader finds a published run that is not whole.

    claim -> _SUCCESS -> latest.json is read again -> manifest.json, status.json -> the other files -> the claim

The claim keeps a start of the same run waiting until the deletion has ended. Without ``_SUCCESS`` readers ignore the
run, and without manifest.json no start can complete its publication. A deletion that was interrupted is continued by
the next one: its claim, released or expired, has the mark ``pruning``.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from job import storage
from job.observability import log
from job.runs import documents
from job.runs.claim import Claimant
from job.runs.inventory import RUNS, read_pointer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from job.runs.retention import Candidate
    from job.storage import Store

INDEX = "checkpoints/index.json"
THREADS = 16
BATCH = 64
"""Objects that are deleted between two looks at the age of the claim."""


class KeptError(Exception):
    """The run is not deleted; the text is the reason."""


def delete_run(output: Store, candidate: Candidate, *, takeover: float) -> None:
    """Delete all objects of a run.

    Args:
        output: the store.
        candidate: the run, as it was selected.
        takeover: seconds after which a claim expires unless it is renewed.

    Raises:
        KeptError: the run has changed since it was selected, or ``latest.json`` names it by now. It is as it was.
        errors.FinetuneError: the store failed. The run is no published run any more, and is deleted by the next call.
    """
    prefix = f"{RUNS}/{candidate.run.run_id}"
    lease = _Lease(output, f"{prefix}/{INDEX}", candidate.generation(INDEX), takeover)
    try:
        _withdraw(output, prefix, candidate, lease)
        # An object that a superseded process wrote since then has another generation: it is no longer this run's.
        first = [f"{prefix}/{name}" for name in ("manifest.json", "status.json")]
        for name in first:
            _delete(output, candidate, [name])
        rest = sorted(candidate.entries.keys() - {*first, f"{prefix}/_SUCCESS", f"{prefix}/{INDEX}"})
        for start in range(0, len(rest), BATCH):
            lease.renew_if_due()
            _delete(output, candidate, rest[start : start + BATCH])
    except BaseException:
        lease.release()
        raise
    lease.delete()
    output.delete_empty_folder(prefix)


def _withdraw(output: Store, prefix: str, candidate: Candidate, lease: _Lease) -> None:
    """Delete ``_SUCCESS``; put it back if ``latest.json`` names the run afterwards, or cannot be read."""
    generation = candidate.generation("_SUCCESS")
    name = f"{prefix}/_SUCCESS"
    found = output.read(name)
    if generation != (found[1].generation if found else 0):
        lease.undo(candidate.index)
        raise KeptError("it was published or changed meanwhile")
    if found is None:
        return
    output.delete(name, if_generation_match=generation)
    try:
        latest, problem = read_pointer(output)
    except BaseException:
        _restore(output, name, found[0])
        lease.undo(candidate.index)
        raise
    if problem or (latest is not None and latest.run_id == candidate.run.run_id):
        _restore(output, name, found[0])
        lease.undo(candidate.index)
        raise KeptError(problem or "latest.json names it by now")


def _restore(output: Store, name: str, data: bytes) -> None:
    with contextlib.suppress(storage.PreconditionFailed):
        output.write(name, data, if_generation_match=0)


def _delete(output: Store, candidate: Candidate, names: Iterable[str]) -> None:
    """Delete objects at the generations at which they were selected."""

    def delete(name: str) -> None:
        if (entry := candidate.entries.get(name)) is not None:
            try:
                output.delete(name, if_generation_match=entry.generation)
            except storage.PreconditionFailed:
                log.get().warning("prune.object_left", uri=output.uri_of(name), note="written since it was selected")

    with ThreadPoolExecutor(THREADS, "prune") as pool:
        list(pool.map(delete, names))


class _Lease:
    """The claim on a run that is being deleted: its index of checkpoints, in place of the run's own.

    Args:
        output: the store.
        name: of the index.
        generation: of the index when the run was selected; 0: there was none.
        takeover: seconds after which it expires unless it is renewed.

    Raises:
        KeptError: the index has changed.
    """

    def __init__(self, output: Store, name: str, generation: int, takeover: float) -> None:
        self._output = output
        self._name = name
        self._generation = generation
        self._ended = False
        self._claimant = Claimant(owner="", takeover_seconds=takeover)
        try:
            self._write(released=False)
        except storage.PreconditionFailed:
            raise KeptError("a process works on it by now") from None

    def renew_if_due(self) -> None:
        """Renew the claim if a quarter of its time has passed.

        Raises:
            KeptError: another process has taken the run over; what is left is that process's.
        """
        if time.monotonic() - self._renewed < self._claimant.takeover_seconds / 4:
            return
        try:
            self._write(released=False)
        except storage.PreconditionFailed:
            self._ended = True
            raise KeptError("a process has taken over what was left of it") from None

    def release(self) -> None:
        """Let other processes take the run over at once, if the claim is still held."""
        if self._ended:
            return
        try:
            self._write(released=True)
        except Exception as error:  # noqa: BLE001 (the claim expires)
            log.get().warning("claim.not_released", error=str(error))

    def undo(self, index: bytes | None) -> None:
        """Put the run's own index back."""
        self._ended = True
        with contextlib.suppress(storage.PreconditionFailed):
            if index is None:
                self.delete()
            else:
                self._output.write(self._name, index, if_generation_match=self._generation)

    def delete(self) -> None:
        """Delete the claim, which is the last object of the run."""
        with contextlib.suppress(storage.PreconditionFailed):
            self._output.delete(self._name, if_generation_match=self._generation)

    def _write(self, *, released: bool) -> None:
        document = documents.Index(pruning=True).document()
        document["claim"] = self._claimant.claim(released=released)
        info = self._output.write(self._name, documents.encode(document), if_generation_match=self._generation)
        self._generation, self._renewed = info.generation, time.monotonic()
