"""Reads the images of a manifest from the stores that they are in, however many these are."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from job import storage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from job.data.manifest import Manifest
    from job.storage import OpenStore, Store


class Sources:
    """The stores of a manifest, each opened once, when its first image is read. Thread-safe.

    Args:
        manifest: the images.
        open_store: opens a store.
    """

    def __init__(self, manifest: Manifest, open_store: OpenStore) -> None:
        self._manifest = manifest
        self._open_store = open_store
        self._stores: dict[int, Store] = {}
        self._lock = threading.Lock()

    def read(self, rows: NDArray[Any]) -> Iterator[tuple[int, bytes | storage.LostObject]]:
        """Yield the row and the bytes of each image, as they arrive, requested in the order of `rows`.

        Threads, open requests and bytes in flight are bounded for all stores together, as `Store.read_many` says.
        """
        if not len(rows):
            return
        objects, roots = self._manifest.objects(rows), self._manifest.root[rows]
        found = (
            self.store(int(roots[0])).read_many(objects)
            if (roots == roots[0]).all()
            else storage.read_across(lambda position: self.store(int(roots[position])), objects)
        )
        for position, data in found:
            yield int(rows[position]), data

    def store(self, root: int) -> Store:
        """Return the store of a root, by its index."""
        with self._lock:
            if root not in self._stores:
                self._stores[root] = self._open_store(self._manifest.roots[root])
            return self._stores[root]
