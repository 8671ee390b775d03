"""Checkpoints of a run, and who works on it.

Under the run's prefix lie objects named by their content, and one small index, which is written last and moved by
generation match: whoever loses that match has been superseded, and stops. The index names the data and the newest
states with size and checksum of every object, and carries the claim of the process that works on the run.

    checkpoints/<sha256>.npz      arrays; no pickle
    checkpoints/index.json
        claim                     who works on the run
        data                      what was listed and found usable, before the first step
        checkpoints               [newest, the one before]
        manifest_sha256           of the manifest.json that the run is published with, once that is certain
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import threading
import time
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from job import errors, storage
from job.data import manifest
from job.data.quarantine import Quarantined
from job.observability import log
from job.runs.claim import Claimant
from job.runtime import signals
from job.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from job.data.manifest import Manifest
    from job.storage import Store
    from job.training.state import Arrays

Document = dict[str, Any]

KEPT = 2
"""States in the index: the newest, and one to fall back to."""

FORMAT = 2
"""Raised when an older program's states cannot be read any more: they are passed over then."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a run trains on, once that is final.

    Attributes:
        listed: every image that was listed. Its rows count: features are computed over fixed ranges of them.
        usable: bool [listed].
        quarantined: the others, and those that could not even be listed.
    """

    listed: Manifest
    usable: NDArray[Any]
    quarantined: list[Quarantined]


class Checkpoints:
    """The checkpoints of one run, saved by a thread of their own. Use it as a context manager: it holds the claim.

    Args:
        output: where the run is published.
        folder: the checkpoints' prefix in it.
        identity: hashes of what decides the run's result; what was saved under others is not loaded.
        owner: who claims the run: the Job's UID; empty: this process.
        interval: seconds between two states saved within an epoch.
        takeover: seconds after which a claim that is not renewed is void.

    Attributes:
        facts: what a resumed run must know of the one before: stored beside each state.
        manifest_sha256: see `commit`; None until then.

    Raises:
        errors.SettingsError: another owner works on this run.
    """

    def __init__(
        self, output: Store, folder: str, *, identity: Document, owner: str, interval: float, takeover: float
    ) -> None:
        self.facts: Document = {}
        self.manifest_sha256: str | None = None
        self._output = output
        self._folder = folder
        self._index = f"{folder}/index.json"
        self._identity = identity
        self._interval = interval
        self._claimant = Claimant(owner=owner, takeover_seconds=takeover)
        self._generation = 0
        self._entries: list[Document] = []
        self._data: Document | None = None
        self._released = False
        self._condition = threading.Condition()  # over what waits to be saved
        self._writing = threading.Lock()  # one index at a time
        self._capture: Callable[[], TrainingState] | None = None
        self._pending: TrainingState | None = None
        self._saving = False
        self._closing = False
        self._error: Exception | None = None
        self._saved_at = time.monotonic()
        self._thread = threading.Thread(target=self._keep_saving, name="checkpoints", daemon=True)

    def __enter__(self) -> Self:
        self._acquire()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._thread.join()
        if kind is not None and self._error is None:  # a published run has no checkpoints any more
            self._released = True
            try:
                self._write_index()
            except Exception as error:  # noqa: BLE001 (the claim runs out by itself)
                log.get().warning("claim.not_released", error=str(error))

    def load(self) -> TrainingState | None:
        """Return the newest state whose objects are whole, None where there is none. `facts` are its own then."""
        for number, entry in enumerate(self._entries):
            try:
                arrays = {group: self._read(found) for group, found in entry["objects"].items()}
            except _DamagedError as error:
                log.get().warning("checkpoint.damaged", object=str(error), saved_at=entry["saved_at"])
                continue
            self._entries = self._entries[number:]
            self.facts = entry["facts"]
            state = TrainingState.restored(entry["state"], arrays)
            log.get().info(
                "checkpoint.loaded", stage=state.stage, epoch=state.epoch, step=state.step, saved_at=entry["saved_at"]
            )
            return state
        return None

    def save_data(self, data: Data) -> None:
        """Keep what the run trains on, so that a later start need not list it again."""
        quarantined = json.dumps([dataclasses.asdict(image) for image in data.quarantined]).encode()
        arrays = {**manifest.pack(data.listed), "usable": data.usable}
        arrays["quarantined"] = np.frombuffer(quarantined, np.uint8)
        before, self._data = self._data, {**self._made_by(), **self._write(arrays, {})}
        self._write_index()
        if before and before["name"] != self._data["name"]:
            self._output.delete(before["name"])

    def load_data(self) -> Data | None:
        """Return what an earlier start kept; None where there is nothing, or it is damaged."""
        if self._data is None:
            return None
        try:
            arrays = self._read(self._data)
            return Data(
                listed=manifest.unpack(arrays),
                usable=arrays["usable"],
                quarantined=[Quarantined(**image) for image in json.loads(arrays["quarantined"].tobytes())],
            )
        except (_DamagedError, ValueError, KeyError, TypeError):
            log.get().warning("checkpoint.damaged", object=self._data["name"], saved_at=self._data["saved_at"])
            return None

    def save(self, capture: Callable[[], TrainingState], *, now: bool, wait: bool) -> None:
        """Save the state if it is due.

        Args:
            capture: copies the state. Until the next call of this, `save_if_possible` may call it at any time, from
                another thread: in the middle of a step it waits.
            now: it is due: an epoch has ended, or the process is about to stop.
            wait: until it is saved.

        Raises:
            errors.StoppedError: another process has taken the run over.
            errors.UnavailableError: an earlier state, or with `wait` this one, could not be saved, after all retries.
        """
        if self._error:
            raise self._error
        self._capture = capture
        if now or time.monotonic() - self._saved_at >= self._interval:
            self._saved_at = time.monotonic()
            self._put(capture())
        if wait:
            self._wait()

    def flush(self) -> None:
        """Wait until all is saved, and make sure that the run is still ours.

        Raises:
            errors.StoppedError: another process has taken the run over.
            errors.UnavailableError: it could not be saved, after all retries.
        """
        self._wait()
        self._write_index()

    def commit(self, manifest_sha256: str) -> None:
        """Note that all of the run's files are written: whoever takes it over from here on only completes it.

        Args:
            manifest_sha256: of the manifest.json that names these files.

        Raises:
            errors.StoppedError: as `flush` does; nothing is noted then.
            errors.UnavailableError: as `flush` does; the note may come to the store with the release of the claim.
        """
        self._wait()
        self.manifest_sha256 = manifest_sha256
        self._write_index()

    def save_if_possible(self, seconds: float) -> bool:
        """Save the state as it is, and release the claim, for a process that is about to be cut off. From any thread.

        In the middle of a step no state is whole; what waits to be saved then has these seconds.

        Args:
            seconds: how long it takes at most.

        Returns:
            Whether all that was done is saved.
        """
        return signals.attempt(self._save_and_release, seconds)

    def _save_and_release(self) -> None:
        if self._capture is not None:
            self._put(self._capture())
        self._wait()
        self._released = True
        self._write_index()

    def _put(self, state: TrainingState) -> None:
        with self._condition:
            self._pending = state  # note: of several that wait, only the newest is saved
            self._condition.notify_all()

    def _wait(self) -> None:
        """Wait until nothing waits to be saved; raise what went wrong."""
        with self._condition:
            self._condition.wait_for(lambda: self._error or not (self._pending or self._saving))
        if self._error:
            raise self._error

    def _acquire(self) -> None:
        """Claim the run, and adopt what its index has."""
        while True:
            document, self._generation = self._claimant.wait_until_free(self._read_index)
            data = document.get("data")
            self._entries = [entry for entry in document.get("checkpoints", []) if self._can_use(entry)]
            self._data = data if data and self._can_use(data) else None
            self.manifest_sha256 = document.get("manifest_sha256")
            try:
                self._write_index()
            except errors.StoppedError:  # another process claimed it first
                self._error = None
                continue
            return

    def _read_index(self) -> tuple[Document, int]:
        found = self._output.read(self._index)
        return (_parse(found[0]), found[1].generation) if found else ({}, 0)

    def _keep_saving(self) -> None:
        """Save what is pending, and renew the claim in between."""
        renewal = self._claimant.takeover_seconds / 4
        while True:
            with self._condition:
                self._saving = False
                self._condition.notify_all()
                self._condition.wait_for(lambda: self._pending or self._closing, timeout=renewal)
                if self._closing and not self._pending:
                    return
                state, self._pending = self._pending, None
                self._saving = True
            try:
                self._save(state) if state else self._write_index()
            except Exception as error:  # noqa: BLE001 (raised where the next step ends)
                with self._condition:
                    self._error, self._saving = error, False
                    self._condition.notify_all()
                return

    def _save(self, state: TrainingState) -> None:
        started = time.monotonic()
        known = {found["name"]: found for kept in self._entries for found in kept["objects"].values()}
        objects = {group: self._write(arrays, known) for group, arrays in state.arrays().items()}
        entry = {**self._made_by(), "facts": self.facts, "state": state.document(), "objects": objects}
        if self._entries and all(self._entries[0][key] == entry[key] for key in ("state", "objects")):
            self._write_index()  # it renews the claim; the same entry again would be no other one to fall back to
            return
        before, self._entries = _names(self._entries), [entry, *self._entries][:KEPT]
        self._write_index()
        for name in before - _names(self._entries):
            self._output.delete(name)
        log.get().debug("checkpoint.saved", stage=state.stage, step=state.step, seconds=time.monotonic() - started)

    def _made_by(self) -> Document:
        """Return what is noted of everything that is saved."""
        return {"format": FORMAT, "saved_at": log.timestamp(), "identity": self._identity}

    def _can_use(self, saved: Document) -> bool:
        """Whether something that was saved can be read, and is of this run's data and settings."""
        if saved["format"] != FORMAT:
            return False
        if saved["identity"] != self._identity:
            found, expected = saved["identity"], self._identity
            log.get().warning(
                "checkpoint.of_another_run", saved_at=saved["saved_at"], identity=found, expected=expected
            )
            return False
        return True

    def _write(self, arrays: Arrays, known: dict[str, Document]) -> Document:
        """Write arrays under a name made of their content, unless they are among the known ones; they are then."""
        data = _pack(arrays)
        name = f"{self._folder}/{hashlib.sha256(data).hexdigest()}.npz"
        if name not in known:
            written = self._output.write(name, data)
            known[name] = {"name": name, "size": written.size, "crc32c": written.crc32c}
        return known[name]

    def _read(self, found: Document) -> Arrays:
        read = self._output.read(found["name"])
        if read is None or (read[1].size, read[1].crc32c) != (found["size"], found["crc32c"]):
            raise _DamagedError(found["name"])
        try:
            return _unpack(read[0])
        except (ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            raise _DamagedError(found["name"]) from error

    def _write_index(self) -> None:
        with self._writing:
            document = {
                "claim": self._claimant.claim(released=self._released),
                "data": self._data,
                "checkpoints": self._entries,
                "manifest_sha256": self.manifest_sha256,
            }
            data = json.dumps(document, allow_nan=False).encode()
            try:
                written = self._output.write(self._index, data, if_generation_match=self._generation)
            except storage.PreconditionFailed:
                self._error = errors.StoppedError(
                    "another process has taken this run over", remedy="nothing is to be done: it goes on with the run"
                )
                raise self._error from None
            self._generation = written.generation


def _pack(arrays: Arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _unpack(data: bytes) -> Arrays:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


class _DamagedError(Exception):
    """An object of a checkpoint is not there, or not whole."""


def _names(entries: list[Document]) -> set[str]:
    return {found["name"] for entry in entries for found in entry["objects"].values()}


def _parse(data: bytes) -> Document:
    """Return the index; an empty one where it is damaged, since the run can begin again."""
    try:
        document = json.loads(data)
        return document if isinstance(document, dict) else {}
    except ValueError:
        log.get().warning("checkpoint.index_damaged")
        return {}
