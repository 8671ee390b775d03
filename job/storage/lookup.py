"""Looks up many names in a store with few requests."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from job.storage.objects import ObjectInfo, Store

LIST_THRESHOLD = 20
"""From this many names in a folder, listing the folder costs fewer requests than looking up each name."""

_THREADS = 16


def stat_each(store: Store, names: Sequence[str], indexes: Sequence[int]) -> Iterator[tuple[int, ObjectInfo]]:
    """Look up the names at some indexes, one request each; yield what exists."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(indexes), 1024):  # note: a million futures would outweigh a million names
            batch = indexes[start : start + 1024]
            for index, found in zip(batch, pool.map(store.stat, [names[index] for index in batch]), strict=True):
                if found:
                    yield index, found


def stat_by_folder(store: Store, names: Sequence[str]) -> Iterator[tuple[int, ObjectInfo]]:
    """Look up sorted names; list the folders that contain many of them."""
    counts = Counter(map(_folder_of, names))
    folders = {folder for folder, count in counts.items() if folder is not None and count >= LIST_THRESHOLD}
    for folder in folders:
        for info in store.list(folder, recursive=False):
            index = bisect_left(names, info.name)
            if index < len(names) and names[index] == info.name:
                yield index, info
    yield from stat_each(store, names, [index for index, name in enumerate(names) if _folder_of(name) not in folders])


def _folder_of(name: str) -> str | None:
    """Return a name's folder; None if listing it would miss the name, as with an empty part ("a//b")."""
    return None if name.startswith("/") or "//" in name else name.rpartition("/")[0]
