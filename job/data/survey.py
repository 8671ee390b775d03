"""Surveys the images of an input by their headers, without decoding them, and says what may mislead a training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np

from job import storage
from job.data import image_header
from job.data.quarantine import Quarantined, UnreadableImage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from job.data.manifest import Manifest
    from job.observability.progress import Progress
    from job.storage import OpenStore

HEAD_BYTES: Final = 64 * 1024
"""Read of each image. The headers of nearly all lie in them; where they do not, the whole image is read."""

FORMATS: Final = get_args(image_header.Format)


@dataclass
class Survey:
    """What the headers of the images say.

    Attributes:
        manifest: every listed image.
        usable: bool [n], whether the header can be used.
        quarantined: the images that cannot.
        damaged: bool [n], the usable images that libjpeg warns about; none before they are decoded.
        warnings: row of each damaged image -> what libjpeg warns about.
        format: uint8 [n], index into `FORMATS`.
        width: int32 [n], pixels; 0 where unusable.
        height: int32 [n].
        orientation: uint8 [n], EXIF, 1 to 8.
        hashes: uint64 [n], of what each image shows (duplicates.perceptual_hash); None before all are decoded.
        read_bytes: bytes read from the stores.
    """

    manifest: Manifest
    usable: NDArray[np.bool_] = field(init=False)
    quarantined: list[Quarantined] = field(default_factory=list)
    damaged: NDArray[np.bool_] = field(init=False)
    warnings: dict[int, str] = field(default_factory=dict)
    format: NDArray[np.uint8] = field(init=False)
    width: NDArray[np.int32] = field(init=False)
    height: NDArray[np.int32] = field(init=False)
    orientation: NDArray[np.uint8] = field(init=False)
    hashes: NDArray[np.uint64] | None = None
    read_bytes: int = 0

    def __post_init__(self) -> None:
        count = len(self.manifest)
        self.usable, self.damaged = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        self.format, self.orientation = np.zeros(count, np.uint8), np.ones(count, np.uint8)
        self.width, self.height = np.zeros(count, np.int32), np.zeros(count, np.int32)


def survey(manifest: Manifest, open_store: OpenStore, *, max_pixels: int, progress: Progress) -> Survey:
    """Read the header of every image.

    Args:
        manifest: the images.
        open_store: opens their stores.
        max_pixels: larger images count as unusable.
        progress: receives the events.

    Raises:
        errors.AccessError: the store denies access.
        errors.UnavailableError: it does not respond, after all retries.
    """
    found = Survey(manifest)
    with progress.phase("survey", len(manifest), "images") as phase:
        for row, data in _heads(found, open_store, np.arange(len(manifest)), HEAD_BYTES):
            try:
                header = _read(data, max_pixels)
            except UnreadableImage as error:
                uri, label = manifest.uri(row), manifest.labels[manifest.label[row]]
                found.quarantined.append(Quarantined(uri, label, int(manifest.size[row]), error.reason, error.detail))
            else:
                found.usable[row] = True
                found.format[row] = FORMATS.index(header.format)
                found.width[row], found.height[row] = header.width, header.height
                found.orientation[row] = header.orientation
            phase.advance()
    found.quarantined.sort(key=lambda image: image.uri)
    return found


def _read(data: bytes | storage.LostObject, max_pixels: int) -> image_header.Header:
    if isinstance(data, storage.LostObject):
        raise UnreadableImage(data.reason, data.detail)
    return image_header.read_header(data, max_pixels=max_pixels)


def _heads(
    found: Survey, open_store: OpenStore, rows: NDArray[Any], size: int
) -> Iterator[tuple[int, bytes | storage.LostObject]]:
    """Yield the row and the first bytes of each image, or all of them where the header does not end in the first."""
    manifest, again = found.manifest, []
    for root, uri in enumerate(manifest.roots):
        of_root = rows[manifest.root[rows] == root]
        for index, data in open_store(uri).read_heads(manifest.objects(of_root), size):
            row = int(of_root[index])
            found.read_bytes += 0 if isinstance(data, storage.LostObject) else len(data)
            if not isinstance(data, storage.LostObject) and len(data) < manifest.size[row] and _needs_more(data):
                again.append(row)
            else:
                yield row, data
    if again:
        yield from _heads(found, open_store, np.array(again), 2**62)


def _needs_more(head: bytes) -> bool:
    """Whether the header of an image may go on after its first bytes."""
    try:
        return image_header.read_header(head, max_pixels=2**62).format == "gif"  # its frames lie all over the file
    except UnreadableImage as error:
        return error.reason == "corrupt"
