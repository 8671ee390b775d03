"""Finds what a store holds under many given names, with few requests."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from job.storage import ObjectInfo, Store

WORTH_LISTING = 20
"""From so many names in one folder on, listing the folder costs fewer requests than asking for each name."""

_ASKED_AT_ONCE = 16


def common_folder(first: str, last: str) -> str:
    """Return the deepest folder that holds all of some sorted names.

    Names relative to it do not depend on where the whole lies, so neither does a digest over them.

    Args:
        first: the first of the names.
        last: the last of them.
    """
    parts = []
    for one, other in zip(first.split("/")[:-1], last.split("/")[:-1], strict=False):
        # In a bucket such parts are names like any other, but as the end of a URI they would be tidied away.
        if one != other or one in {"", ".", ".."} or one != one.strip():
            break
        parts.append(one)
    return "/".join(parts)


def find_objects(store: Store, names: list[str], start: int = 0) -> Iterator[tuple[int, ObjectInfo]]:
    """Find what is stored under some names; yield each one's index that is there, in any order.

    Args:
        store: where to look.
        names: sorted from ``start`` on, each once.
        start: the first name to look for.
    """
    # On a disk listing never pays: asking is cheap there, and a listing reads every file for its checksum.
    remote = store.uri.startswith("gs://")
    wanted = Counter(map(_folder_of, names[start:]))
    folders = {folder for folder, count in wanted.items() if remote and folder is not None and count >= WORTH_LISTING}
    for folder in folders:
        for info in store.list(folder, recursive=False):
            index = bisect_left(names, info.name, start)
            if index < len(names) and names[index] == info.name:
                yield index, info
    single = [index for index in range(start, len(names)) if _folder_of(names[index]) not in folders]
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        for i in range(0, len(single), 1024):  # note: a future for each of a million names would outweigh the names
            some = single[i : i + 1024]
            for index, found in zip(some, pool.map(store.stat, [names[index] for index in some]), strict=True):
                if found:
                    yield index, found


def _folder_of(name: str) -> str | None:
    """Return a name's folder, None where a listing would not find it: two slashes in a row make no folder."""
    return None if name.startswith("/") or "//" in name else name.rpartition("/")[0]
