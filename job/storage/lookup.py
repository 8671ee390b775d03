"""Looks up many names in a store with few requests."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from job.storage import ObjectInfo, Store

LIST_THRESHOLD = 20
"""From this many names in a folder, listing the folder costs fewer requests than looking up each name."""

_THREADS = 16


def common_folder(first: str, last: str) -> str:
    """Return the deepest folder that contains all of some sorted names.

    Names relative to it do not depend on where the data is stored, so neither does a digest of them.

    Args:
        first: the first of the sorted names.
        last: the last one.
    """
    parts = []
    for one, other in zip(first.split("/")[:-1], last.split("/")[:-1], strict=False):
        # In a bucket these parts are ordinary names, but at the end of a URI they would be normalized away.
        if one != other or one in {"", ".", ".."} or one != one.strip():
            break
        parts.append(one)
    return "/".join(parts)


def find_objects(store: Store, names: list[str], start: int = 0) -> Iterator[tuple[int, ObjectInfo]]:
    """Look up names; yield the index and the object of each that exists, in any order.

    Args:
        store: the store to search.
        names: sorted from ``start`` on, without duplicates.
        start: index of the first name to look up.
    """
    # On a disk listing never pays: a lookup is cheap, and a listing reads every file for its checksum.
    remote = store.uri.startswith("gs://")
    counts = Counter(map(_folder_of, names[start:]))
    folders = {folder for folder, count in counts.items() if remote and folder is not None and count >= LIST_THRESHOLD}
    for folder in folders:
        for info in store.list(folder, recursive=False):
            index = bisect_left(names, info.name, start)
            if index < len(names) and names[index] == info.name:
                yield index, info
    single = [index for index in range(start, len(names)) if _folder_of(names[index]) not in folders]
    with ThreadPoolExecutor(_THREADS) as pool:
        for i in range(0, len(single), 1024):  # note: a future for each of a million names would outweigh the names
            batch = single[i : i + 1024]
            for index, found in zip(batch, pool.map(store.stat, [names[index] for index in batch]), strict=True):
                if found:
                    yield index, found


def _folder_of(name: str) -> str | None:
    """Return a name's folder; None if listing it would miss the name, as with an empty part ("a//b")."""
    return None if name.startswith("/") or "//" in name else name.rpartition("/")[0]
