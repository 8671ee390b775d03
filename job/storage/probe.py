"""Tries what a run does with its stores: reads from the input, and every operation on the output with one small object.

Nothing is written to the input. The output's object is deleted, and so are the folders that were created for it.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from job.errors import AccessError, DataError, FinetuneError, SettingsError, UnavailableError
from job.observability import log
from job.storage.objects import LostObject, ObjectInfo, PreconditionFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.storage import OpenStore, Store

PREFIX = ".finetune-doctor-"
"""Of the object's name, which is hidden and so is no image even where another run reads it."""

READ_BYTES = 16 * 2**20
"""A larger object is only looked up."""

_FIRST, _SECOND = b"finetune doctor\n", b"finetune doctor, overwritten\n"


def read_input(uri: str, open_store: OpenStore) -> str:
    """Read the first object of an input, or look up its manifest; return what was found.

    Raises:
        DataError: there is nothing.
    """
    # A manifest's own permission comes first: its reader need not be allowed to list the bucket.
    if PurePosixPath(uri).suffix and (found := _find_file(uri, open_store)):
        return found
    store = open_store(uri)
    first = next(iter(store.list()), None)
    if first is None:
        if found := _find_file(uri, open_store):
            return found
        raise DataError(f"there is nothing in {uri}", remedy="Correct input.uri, or upload the images.")
    shown = store.uri_of(first.name)
    if first.size > READ_BYTES:
        return f"{uri}: listed; the first object, {shown}, has {first.size:,} bytes and was not read"
    for _, data in store.read_many([first]):
        if isinstance(data, LostObject):
            raise DataError(
                f"{shown} is {data.reason} right after it was listed", remedy="Let no one change the input."
            )
    return f"{uri}: listed, {shown} read"


def _find_file(uri: str, open_store: OpenStore) -> str | None:
    folder, _, name = uri.rpartition("/")
    if folder == "gs:/":  # a whole bucket
        return None
    info = open_store(folder or "/").stat(name)
    return f"{uri}: found, {info.size:,} bytes" if info else None


class OutputProbe:
    """Tries the output's operations. Call them in the order of the methods; each but `create` needs `created`.

    Args:
        open_output: opens the output's store.

    Attributes:
        name: of the object.
    """

    def __init__(self, open_output: Callable[[], Store]) -> None:
        self._open_output = open_output
        self.name = f"{PREFIX}{uuid.uuid4().hex}"
        self._store: Store | None = None
        self._folders: list[Path] = []
        self._info: ObjectInfo | None = None
        self._content = _FIRST
        self._written = (0.0, 0.0)

    @property
    def created(self) -> bool:
        """Whether the object exists."""
        return self._info is not None

    def create(self) -> str:
        """Create the object.

        Raises:
            FinetuneError: it cannot be created.
        """
        store = self._open_output()
        if store.uri.startswith("/"):
            folders = (Path(store.uri), *Path(store.uri).parents)
            # Path.exists raises if a parent may not be entered.
            self._folders = [folder for folder in folders if not os.path.exists(folder)]  # noqa: PTH110
        self._store = store  # from here on there may be something to delete
        try:
            self._write(store, _FIRST, 0)
        except (AccessError, DataError, SettingsError):
            self._store = None  # nothing was created; after other errors it may have been
            raise
        return f"{store.uri}: created {self.name}"

    def refuse(self) -> str:
        """Check that a second creation is refused: runs exclude each other by such preconditions.

        Raises:
            SettingsError: it was not refused.
        """
        store = self._opened()
        try:
            self._info = store.write(self.name, _FIRST, if_generation_match=0)
        except PreconditionFailed:
            return "a second creation is refused"
        raise SettingsError(
            f"{store.uri} ignores if_generation_match: an object that exists was created again",
            remedy="Runs exclude each other by this precondition. Use Google Cloud Storage itself, without a gateway "
            "that drops it; or a file system that supports flock.",
        )

    def overwrite(self) -> str:
        """Overwrite the object at its generation.

        Raises:
            SettingsError: the store does not accept the generation that it reported.
            FinetuneError: it cannot be overwritten.
        """
        store = self._opened()
        assert self._info
        try:
            self._write(store, _SECOND, self._info.generation)
        except PreconditionFailed as error:
            raise SettingsError(
                f"{store.uri} refuses to overwrite an object at the generation that it reported",
                remedy="Use Google Cloud Storage itself, without a gateway that caches; or a local disk.",
            ) from error
        return "overwritten at its generation"

    def read(self) -> str:
        """Read the object back.

        Raises:
            UnavailableError: it is not what was written.
        """
        store = self._opened()
        found = store.read(self.name)
        if found is None or found[0] != self._content:
            raise UnavailableError(
                f"{store.uri_of(self.name)}, just written, {'has other bytes' if found else 'is not found'}",
                remedy="See what caches or changes responses between here and the store.",
            )
        return f"read back, {len(found[0])} bytes"

    def clock_skew(self) -> float | None:
        """Return by how many seconds the store's clock is ahead; 0 if that is less than the time that a write takes.

        The store's clock is read from the time at which it says that the object was written; None if it says none.
        """
        earliest, latest = self._written
        updated = self._opened().updated(self.name)
        if updated is None:
            return None
        return min(0.0, updated - earliest) + max(0.0, updated - latest)

    def delete(self) -> str:
        """Delete the object.

        Raises:
            FinetuneError: it cannot be deleted, and is left.
        """
        store = self._opened()
        try:
            store.delete(self.name)
        except FinetuneError as error:
            self._store = None  # another try would fail as well
            message = f"{error.message}; {store.uri_of(self.name)} is left"
            raise type(error)(message, remedy=error.remedy) from error
        self._store = self._info = None
        self._remove_folders()
        return "deleted"

    def clean_up(self) -> None:
        """Delete the object if it may exist; log it if that fails."""
        store, self._store = self._store, None
        if store is None:
            return
        try:
            store.delete(self.name)
            self._remove_folders()
        except Exception as error:  # noqa: BLE001  # it is the last chance, and what failed is reported already
            log.get().warning("doctor.object_may_be_left", uri=store.uri_of(self.name), error=str(error))

    def _opened(self) -> Store:
        assert self._store
        return self._store

    def _write(self, store: Store, content: bytes, generation: int) -> None:
        earliest = time.time()
        self._info = store.write(self.name, content, if_generation_match=generation)
        self._written = (earliest, time.time())
        self._content = content

    def _remove_folders(self) -> None:
        for folder in self._folders:
            with contextlib.suppress(OSError):  # another process uses it meanwhile
                folder.rmdir()
