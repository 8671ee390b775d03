"""Images without labels: finds them under files, folders and buckets, and reads them in order, a few at a time.

Nothing is kept of an image once it has been passed on, so memory does not depend on their number.
"""

from __future__ import annotations

import os.path
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from job import storage
from job import uri as uris
from job.data import image_header
from job.data.litter import is_litter
from job.data.manifest import display_uri
from job.data.quarantine import UnreadableImage
from job.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from job.data.quarantine import Reason
    from job.storage import ObjectInfo, OpenStore, Store

BATCH = 32
"""Images that are read and scored together."""
BATCH_BYTES = 64 * 2**20
"""Bytes of them, unless a single image is larger."""
AHEAD = 2
"""Batches that are read while one is scored."""
LOOKUPS = 64
"""Names that are looked up together."""


class Listed(NamedTuple):
    """A file that may be an image.

    Attributes:
        uri: for messages and outputs.
        store: that has it.
        info: as listed; None if there is no such file.
    """

    uri: str
    store: Store
    info: ObjectInfo | None


class Image(NamedTuple):
    """An image that was read.

    Attributes:
        uri: as listed.
        data: the encoded bytes; None if they cannot be used.
        reason: why not, one of quarantine.REASONS; None if they can.
        detail: a sentence, for people.
    """

    uri: str
    data: bytes | None
    reason: Reason | None = None
    detail: str = ""


def find(paths: Iterable[str], open_store: OpenStore, ignored: Callable[[str], object] = str) -> Iterator[Listed]:
    """Yield the files of paths, in the order of the paths and, below a folder, by name.

    Args:
        paths: files and folders, local or ``gs://``. They are taken a few at a time, as they are needed.
        open_store: opens their stores.
        ignored: called with the URI of each file of a folder that is no image by its name.

    Raises:
        errors.SettingsError: a path is neither.
        errors.AccessError, errors.UnavailableError: a store fails.
    """
    stores: dict[str, Store] = {}

    def locate(path: str) -> tuple[Store, str]:
        try:
            location = uris.parse(path)
        except ValueError as error:
            raise SettingsError(str(error), remedy="give files, folders, gs://BUCKET/NAME, or - for a list") from None
        is_object = location.scheme == "gs"
        root = f"gs://{location.bucket}" if is_object else "/"
        if root not in stores:
            stores[root] = open_store(root)
        return stores[root], location.path if is_object else os.path.normpath(location.path).lstrip("/")

    remaining = iter(paths)
    with ThreadPoolExecutor(16, "lookup") as pool:
        while located := [locate(path) for path in islice(remaining, LOOKUPS)]:
            for (store, name), info in zip(located, pool.map(_look_up, located), strict=True):
                if info is not None:
                    yield Listed(_uri(store, name), store, info)
                else:
                    yield from _list(store, name, ignored)


def _look_up(located: tuple[Store, str]) -> ObjectInfo | None:
    store, name = located
    return store.stat(name) if name else None


def _list(store: Store, folder: str, ignored: Callable[[str], object]) -> Iterator[Listed]:
    """Yield the files below a folder; the folder itself, without a file, if there are none."""
    start, is_empty = len(folder) + 1 if folder else 0, True
    for info in store.list(folder):
        is_empty = False
        # As in the folder of a class: of files without a suffix, some are images.
        if is_litter(f"folder/{info.name[start:]}"):
            ignored(_uri(store, info.name))
        else:
            yield Listed(_uri(store, info.name), store, info)
    if is_empty:
        yield Listed(_uri(store, folder), store, None)


def _uri(store: Store, name: str) -> str:
    return display_uri(store.uri, name) if name else store.uri


def read(listed: Iterable[Listed], *, max_pixels: int) -> Iterator[list[Image]]:
    """Read images and check their headers; yield them in order, in batches, the next ones read meanwhile.

    Args:
        listed: the files.
        max_pixels: larger images are not used.

    Yields:
        One to `BATCH` images.

    Raises:
        errors.AccessError, errors.UnavailableError: a store fails.
    """
    batches = _batches(listed)
    with ThreadPoolExecutor(1, "read") as pool:
        ahead = deque(pool.submit(_read_batch, batch, max_pixels) for batch in islice(batches, AHEAD))
        while ahead:
            images = ahead.popleft().result()
            ahead.extend(pool.submit(_read_batch, batch, max_pixels) for batch in islice(batches, 1))
            yield images


def _batches(listed: Iterable[Listed]) -> Iterator[list[Listed]]:
    """Yield consecutive files of one store, few enough to be in memory together."""
    batch: list[Listed] = []
    size = 0
    for file in listed:
        more = file.info.size if file.info else 0
        if batch and (len(batch) == BATCH or size + more > BATCH_BYTES or file.store is not batch[0].store):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += more
    if batch:
        yield batch


def _read_batch(batch: list[Listed], max_pixels: int) -> list[Image]:
    present = [(number, file.info) for number, file in enumerate(batch) if file.info is not None]
    images = [Image(file.uri, None, "missing", "there is no such file, and no file in such a folder") for file in batch]
    for index, data in batch[0].store.read_many([info for _, info in present]):
        number = present[index][0]
        images[number] = _check(batch[number].uri, data, max_pixels)
    return images


def _check(uri: str, data: bytes | storage.LostObject, max_pixels: int) -> Image:
    """Return an image whose header was checked as a run does."""
    if isinstance(data, storage.LostObject):
        return Image(uri, None, data.reason, data.detail)
    if not data:
        return Image(uri, None, "empty", "the file has no bytes")
    try:
        image_header.read_header(data, max_pixels=max_pixels)
    except UnreadableImage as error:
        return Image(uri, None, error.reason, error.detail)
    return Image(uri, data)
