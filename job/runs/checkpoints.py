"""The checkpoints of a run, and the claim of the process that works on it.

Arrays are stored in objects named by their content hash. A small index is written last, with a generation
precondition: a process whose precondition fails has been superseded, and stops. The index lists the data and the newest
states, with size and checksum of every object, and holds the claim.

    checkpoints/<sha256>.npz      arrays; no pickle
    checkpoints/index.json
        claim                     the process that works on the run
        data                      what was listed; after the pass over the data, which images are usable
        checkpoints               [newest, previous]
        starts, timing            number of starts, and the seconds of each phase over all of them
        manifest_sha256           of the manifest.json to publish, once the run is committed
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from job import errors, storage
from job.observability import log
from job.runs import documents
from job.runs.claim import Claimant
from job.runs.data import Data
from job.runtime import signals
from job.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.runtime.timing import Timing
    from job.storage import Store
    from job.training.state import Arrays

Document = dict[str, Any]

MAX_CHECKPOINTS = 2
"""States in the index: the newest, and one to fall back to."""

FORMAT = 2
"""Version of the stored format. Increment it when older states become unreadable: those are ignored."""


class Checkpoints:
    """The checkpoints of one run, saved by a background thread. Use as a context manager, which holds the claim.

    Args:
        output: the store that the run is published to.
        folder: the checkpoints' prefix in it.
        identity: hashes of everything that determines the result; states saved under other hashes are not loaded.
        owner: claims the run: the Job's UID; empty: this process.
        interval: seconds between two states saved within an epoch.
        takeover: seconds after which a claim expires unless it is renewed.
        timing: of this start.

    Attributes:
        facts: about the process that saved a state, stored with it for the process that resumes from it.
        manifest_sha256: see `commit`; None before.
        starts: number of starts of the run, this one included.
        loaded: when the state that `load` returned was saved; None: it has returned none.

    Raises:
        errors.StoppedError: another owner works on this run.
    """

    def __init__(
        self,
        output: Store,
        folder: str,
        *,
        identity: Document,
        owner: str,
        interval: float,
        takeover: float,
        timing: Timing,
    ) -> None:
        self.facts: Document = {}
        self.manifest_sha256: str | None = None
        self.starts = 1
        self.loaded: str | None = None
        self._timing = timing
        self._output = output
        self._folder = folder
        self._index_name = f"{folder}/index.json"
        self._identity = identity
        self._interval = interval
        self._claimant = Claimant(owner=owner, takeover_seconds=takeover)
        self._generation = 0
        self._entries: list[Document] = []
        self._data: Document | None = None
        self._released = False
        self._condition = threading.Condition()  # guards the pending state and the flags below
        self._index_lock = threading.Lock()
        self._capture: Callable[[], TrainingState] | None = None
        self._pending: TrainingState | None = None
        self._saving = False
        self._closing = False
        self._error: Exception | None = None
        self._saved_at = time.monotonic()
        self._thread = threading.Thread(target=self._run_saver, name="checkpoints", daemon=True)

    def __enter__(self) -> Self:
        self._acquire()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._thread.join()
        if (
            kind is not None and self._error is None
        ):  # without an exception, the run is published and its checkpoints are deleted
            self._released = True
            try:
                self._write_index()
            except Exception as error:  # noqa: BLE001 (the claim expires)
                log.get().warning("claim.not_released", error=str(error))

    def load(self) -> TrainingState | None:
        """Return the newest state whose objects are intact and set `facts` from it; None if there is none."""
        for number, entry in enumerate(self._entries):
            try:
                arrays = {group: self._read(reference) for group, reference in entry["objects"].items()}
                state, facts = TrainingState.from_document(entry["state"], arrays), entry["facts"]
            except (_DamagedError, AttributeError, KeyError, TypeError) as error:
                log.get().warning("checkpoint.damaged", object=str(error), saved_at=entry.get("saved_at"))
                continue
            self._entries, self.facts, self.loaded = self._entries[number:], facts, entry["saved_at"]
            log.get().info(
                "checkpoint.loaded", stage=state.stage, epoch=state.epoch, step=state.step, saved_at=entry["saved_at"]
            )
            return state
        return None

    def save_data(self, data: Data) -> None:
        """Save the data, so that later starts train on the same without listing again.

        Raises:
            errors.StoppedError: another process has taken the run over.
        """
        previous, self._data = self._data, {**self._header(), **self._write(data.pack(), {})}
        self._write_index()
        if previous and previous["name"] != self._data["name"]:
            self._output.delete(previous["name"])

    def load_data(self) -> Data | None:
        """Return the data that an earlier start saved; None if there are none, or they are damaged."""
        if self._data is None:
            return None
        try:
            return Data.unpack(self._read(self._data))
        except (_DamagedError, ValueError, KeyError, TypeError):
            log.get().warning("checkpoint.damaged", object=self._data["name"], saved_at=self._data["saved_at"])
            return None

    def save(self, capture: Callable[[], TrainingState], *, now: bool, wait: bool) -> None:
        """Save the state if it is due.

        Args:
            capture: copies the state. Until the next call of `save`, `save_if_possible` may call it at any time from
                another thread; during a step it blocks.
            now: save regardless of the interval: an epoch has ended, or the process is about to stop.
            wait: block until the state is saved.

        Raises:
            errors.StoppedError: another process has taken the run over.
            errors.UnavailableError: saving an earlier state, or with `wait` this one, failed in all attempts.
        """
        self.check()
        self._capture = capture
        if now or time.monotonic() - self._saved_at >= self._interval:
            self._saved_at = time.monotonic()
            self._enqueue(capture())
        if wait:
            self._wait()

    def check(self) -> None:
        """Raise the error of the background thread, if it failed: call it often in work that takes long.

        Raises:
            errors.StoppedError: another process has taken the run over.
            errors.AccessError, errors.UnavailableError: the claim could not be renewed, or a state not be saved.
        """
        if self._error:
            raise self._error

    def flush(self) -> None:
        """Wait until everything is saved, and check that this process still holds the claim.

        Raises:
            errors.StoppedError: another process has taken the run over.
            errors.UnavailableError: saving failed in all attempts.
        """
        self._wait()
        self._write_index()

    def commit(self, manifest_sha256: str) -> None:
        """Record that all files of the run are written: a process that takes it over now only completes it.

        Args:
            manifest_sha256: of the manifest.json that lists these files.

        Raises:
            errors.StoppedError: see `flush`; nothing is recorded.
            errors.UnavailableError: see `flush`; the release of the claim may still record the commit.
        """
        self._wait()
        self.manifest_sha256 = manifest_sha256
        self._write_index()

    def save_if_possible(self, seconds: float) -> bool:
        """Save the current state and release the claim before the process is killed. Thread-safe.

        During a step the state is inconsistent and cannot be captured; then only the pending state may get saved.

        Args:
            seconds: time limit.

        Returns:
            Whether everything is saved.
        """
        return signals.attempt(self._save_and_release, seconds)

    def _save_and_release(self) -> None:
        if self._capture is not None:
            self._enqueue(self._capture())
        self._wait()
        self._released = True
        self._write_index()

    def _enqueue(self, state: TrainingState) -> None:
        with self._condition:
            self._pending = state  # note: replaces an older pending state: only the newest is worth saving
            self._condition.notify_all()

    def _wait(self) -> None:
        """Wait until no state is pending; raise the saver's error."""
        with self._condition:
            self._condition.wait_for(lambda: self._error or not (self._pending or self._saving))
        if self._error:
            raise self._error

    def _acquire(self) -> None:
        """Claim the run, and load its index."""
        while True:
            document, self._generation = self._claimant.wait_until_free(self._read_index)
            data = document["data"]
            self._entries = [entry for entry in document["checkpoints"] if self._is_usable(entry)]
            self._data = data if data and self._is_usable(data) else None
            self.manifest_sha256 = document["manifest_sha256"]
            self.starts = document["starts"] + 1
            self._timing.earlier = document["timing"]
            try:
                self._write_index()
            except errors.StoppedError:  # another process claimed it first
                self._error = None
                continue
            return

    def _read_index(self) -> tuple[Document, int]:
        index, generation = read_index(self._output, self._folder)
        return index.document(), generation

    def _run_saver(self) -> None:
        """Save pending states, and renew the claim while idle."""
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
            except Exception as error:  # noqa: BLE001 (raised at the end of the next step)
                with self._condition:
                    self._error, self._saving = error, False
                    self._condition.notify_all()
                return

    def _save(self, state: TrainingState) -> None:
        started = time.monotonic()
        known = {reference["name"]: reference for old in self._entries for reference in old["objects"].values()}
        objects = {group: self._write(arrays, known) for group, arrays in state.arrays().items()}
        entry = {**self._header(), "facts": self.facts, "state": state.document(), "objects": objects}
        if self._entries and all(self._entries[0][key] == entry[key] for key in ("state", "objects")):
            self._write_index()  # renews the claim; a duplicate entry would evict the state to fall back to
            return
        previous_names, self._entries = _object_names(self._entries), [entry, *self._entries][:MAX_CHECKPOINTS]
        self._write_index()
        for name in previous_names - _object_names(self._entries):
            self._output.delete(name)
        log.get().debug("checkpoint.saved", stage=state.stage, step=state.step, seconds=time.monotonic() - started)

    def _header(self) -> Document:
        """Return the metadata of everything that is saved."""
        return {"format": FORMAT, "saved_at": log.timestamp(), "identity": self._identity}

    def _is_usable(self, saved: Document) -> bool:
        """Return whether a saved entry is readable and belongs to this run's data and settings."""
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
        """Write arrays under their content hash unless `known` has them; return their reference, added to `known`."""
        data = _pack(arrays)
        name = f"{self._folder}/{hashlib.sha256(data).hexdigest()}.npz"
        if name not in known:
            info = self._output.write(name, data)
            known[name] = {"name": name, "size": info.size, "crc32c": info.crc32c}
        return known[name]

    def _read(self, reference: Document) -> Arrays:
        found = self._output.read(reference["name"])
        if found is None or (found[1].size, found[1].crc32c) != (reference["size"], reference["crc32c"]):
            raise _DamagedError(reference["name"])
        try:
            return _unpack(found[0])
        except (ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            raise _DamagedError(reference["name"]) from error

    def _write_index(self) -> None:
        with self._index_lock:
            document = {
                "claim": self._claimant.claim(released=self._released),
                "data": self._data,
                "checkpoints": self._entries,
                "manifest_sha256": self.manifest_sha256,
                "starts": self.starts,
                "timing": self._timing.document(),
            }
            data = json.dumps(document, allow_nan=False).encode()
            try:
                info = self._output.write(self._index_name, data, if_generation_match=self._generation)
            except storage.PreconditionFailed:
                self._error = errors.StoppedError(
                    "another process has taken this run over", remedy="nothing to do: that process continues the run"
                )
                raise self._error from None
            self._generation = info.generation


def _pack(arrays: Arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _unpack(data: bytes) -> Arrays:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


class _DamagedError(Exception):
    """An object of a checkpoint is missing or corrupt."""


def _object_names(entries: list[Document]) -> set[str]:
    return {reference["name"] for entry in entries for reference in entry["objects"].values()}


def read_index(output: Store, folder: str) -> tuple[documents.Index, int]:
    """Return the index of the checkpoints in a folder, and its generation, 0 if there is none.

    An index that is unreadable counts as an empty one, since the run can start over.
    """
    found = output.read(f"{folder}/index.json")
    if found is None:
        return documents.Index(), 0
    try:
        return documents.parse(found[0], documents.Index), found[1].generation
    except documents.UnreadableError as error:
        log.get().warning("checkpoint.index_damaged", uri=output.uri_of(found[1].name), error=str(error))
        return documents.Index(), found[1].generation
