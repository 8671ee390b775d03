"""Input that hangs in the middle of a run: an image that has to be read again, from a store that does not answer.

Nothing in the job is replaced for it. The cache keeps the images' bytes and has no room for pixels, so that every epoch
decodes each image again; where a kept one is damaged, the job reads it from the bucket, which is behind a proxy.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

from job import storage
from job.data.cache_files import CHECKSUM_BYTES, RECORD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fault_proxy import Seen

INDEX_BYTES = RECORD.itemsize
FEATURE_BYTES = 4 * 1280 + CHECKSUM_BYTES


class Hold:
    """A fault for the proxy: the first request that matches is held back until the test goes on.

    Args:
        which: whether a request matches.

    Attributes:
        reached: set when it has come.
        released: to be set when it may go on.
    """

    def __init__(self, which: Callable[[Seen], bool]) -> None:
        self._which = which
        self._first = threading.Lock()
        self.reached = threading.Event()
        self.released = threading.Event()

    def __call__(self, request: Seen) -> None:
        """Hold, or let it pass at once."""
        if self._which(request) and self._first.acquire(blocking=False):
            self.reached.set()
            self.released.wait(120)


def cache_flags(flags: Sequence[str], cache: Path, *, in_stage_2: bool = False) -> tuple[str, ...]:
    """Return flags for a cache in a folder, with room for features and encoded bytes alone.

    Args:
        flags: those with the input.
        cache: the folder.
        in_stage_2: the run is in stage 2 already, so that features take no room.
    """
    store = storage.open_store(flags[-1])
    needed = sum(found.size + INDEX_BYTES + (0 if in_stage_2 else FEATURE_BYTES) for found in store.list(""))
    return ("--cache.dir", str(cache), "--cache.max_bytes", str(needed))


def sides(output: str) -> dict[str, list[str]]:
    """Return the URIs of each side of the split, in the order of the one run's manifest."""
    store = storage.open_store(output)
    [name] = [found.name for found in store.list("runs") if found.name.endswith("/split.jsonl")]
    found = store.read(name)
    assert found is not None
    rows = [json.loads(line) for line in found[0].splitlines()]
    return {side: [row["uri"] for row in rows if row["split"] == side] for side in ("train", "validation")}


def damage(cache: Path, uri: str) -> None:
    """Flip a bit of an image in the cache of the one run that has one."""
    folder, _, name = uri.rpartition("/")
    found = storage.open_store(folder).read(name)
    assert found is not None
    [path] = cache.glob("*/encoded")
    position = path.read_bytes().index(found[0])
    with path.open("r+b") as file:
        file.seek(position)
        file.write(bytes([found[0][0] ^ 1]))
