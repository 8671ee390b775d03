"""The cache of a run: features, encoded bytes and decoded pixels on a local volume, within a budget.

Space is assigned in this order. Features, also those of augmented images, are small and make stage 1 cheap, and
everything else is computed from the encoded bytes: a run needs both. With `fine_tuning.cache_frozen` it holds the
outputs of the backbone's frozen part as well, which stage 2 trains on. Decoded pixels only save decoding each image in
every epoch, with the same result: they are stored if ``cache.max_bytes`` allows. All are files, so that memory does not
grow with the number of images.

If ``cache.dir`` is set, they outlive a run that was stopped or killed, in a folder of the run's own, and its next
start reuses them. Every row has a checksum, which is verified on each read: the disk may be damaged, or the process
killed in the middle of a row.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from job import __version__, errors
from job.data.cache_files import CHECKSUM_BYTES, RECORD, EncodedFile, Marks, Rows, unwritable
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from job.config.settings import CacheSettings
    from job.data.manifest import Manifest


Part = Literal["encoded", "features", "views", "frozen", "pixels"]

_OPTIONAL: dict[str, Part] = {"view": "views", "frozen": "frozen"}
"""Parts that few runs have, by their names in the facts."""

VERSIONS = "versions"
"""Key of the number of augmented versions of each image, among what the part "views" is made from."""

EXPORT_BYTES = 128 * 2**20
"""Left free if space is short, since the model is exported to the same disk."""

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_ACCESS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}
)
"""Errors that the next start would get again; other disk errors may be gone by then."""


def open_cache(
    settings: CacheSettings,
    *,
    run_id: str,
    manifest: Manifest,
    image_size: int,
    feature_size: int,
    depends_on: Mapping[Part, Mapping[str, object]],
) -> Cache:
    """Open the cache of a run, and reuse the parts from an earlier start that were made from the same data.

    Args:
        settings: where it is stored and how large it may grow.
        run_id: the run that owns it.
        manifest: every image that was listed.
        image_size: height and width of the decoded pixels.
        feature_size: length of a feature vector; 0: no features are needed.
        depends_on: what each part depends on, as plain JSON: "pixels" besides the data, this version and their size,
            "features" besides the pixels, "views" and "frozen" besides the features. "views" has their number as
            `VERSIONS`, "frozen" the "shape" of the outputs for an image; where one of the two is empty, there are none.

    Raises:
        errors.FinetuneError: as `Cache` does.
    """
    content: dict[str, object] = {"data": manifest.digest(), "finetune": __version__}
    pixels = content | {"image_size": image_size, **depends_on.get("pixels", {})}
    features = pixels | {**depends_on.get("features", {})}
    optional: tuple[Part, Part] = ("views", "frozen")
    return Cache(
        settings,
        run_id=run_id,
        made_from={
            "encoded": content,
            "pixels": pixels,
            "features": features,
            **{part: features | {**depends_on[part]} for part in optional if depends_on.get(part)},
        },
        images=len(manifest),
        encoded_bytes=int(manifest.size.sum()),
        image_size=image_size,
        feature_size=feature_size,
    )


def free_bytes(settings: CacheSettings, folder: Path, existing: int = 0) -> int:
    """Return the bytes that a cache in `folder` may take: of a disk of the node, the Pod may take a part.

    Args:
        settings: has the Pod's limit.
        folder: exists.
        existing: bytes that an earlier start's cache takes there.
    """
    free = shutil.disk_usage(folder).free + existing
    return free if settings.volume_limit_bytes is None else min(free, settings.volume_limit_bytes)


def part_bytes(
    images: int,
    *,
    encoded_bytes: int,
    image_size: int,
    feature_size: int,
    views: int = 0,
    frozen_shape: tuple[int, ...] = (),
) -> dict[Part, int]:
    """Return the bytes that each part of a cache takes: all are needed but pixels.

    Args:
        images: number of rows.
        encoded_bytes: stored size of all images.
        image_size: height and width of the decoded pixels.
        feature_size: length of a feature vector; 0: no features are needed.
        views: augmented versions of each image whose features are stored, if features are needed.
        frozen_shape: of the frozen part's output for an image; empty: none are cached.
    """
    features = images * (feature_size * 4 + CHECKSUM_BYTES) if feature_size else 0
    return {
        "features": features,
        "views": views * features,
        "frozen": images * (math.prod(frozen_shape) * 4 + CHECKSUM_BYTES) if frozen_shape else 0,
        "encoded": encoded_bytes + images * RECORD.itemsize,
        "pixels": images * (image_size * image_size * 3 + CHECKSUM_BYTES),
    }


class Cache:
    """The cache of one run. A context manager: it is removed on exit, unless the run failed.

    Rows are those of the manifest. `put_encoded` is thread-safe.

    Args:
        settings: where it is stored and how large it may grow.
        run_id: the run that owns it.
        made_from: part -> what its content depends on, as plain JSON. A part from an earlier start is reused if this
            is unchanged. Of "views", if there are any, `VERSIONS` is their number, and that of "frozen" has the "shape"
            of the outputs for an image.
        images: number of rows.
        encoded_bytes: stored size of all images.
        image_size: height and width of the decoded pixels.
        feature_size: length of a feature vector; 0: no features are needed.

    Raises:
        errors.DataError: features, the frozen part's outputs and encoded bytes do not fit.
        errors.AccessError: the folder is not writable.
        errors.UnavailableError: the disk fails.

    Attributes:
        folder: contains the files.
        needs_features: whether `features` has room for any.
        features: float32 [images, feature_size].
        views: float32 [views x images, feature_size], the features of augmented images; None: none are needed. It has
            room for all images, since it is allocated before they are split.
        frozen: float32 [images, *shape], the outputs of the frozen part; None if none are cached.
        pixels: uint8 [images, image_size, image_size, 3]; None if they do not fit.
        facts: about the event ``cache.opened``.
    """

    def __init__(
        self,
        settings: CacheSettings,
        *,
        run_id: str,
        made_from: Mapping[Part, Mapping[str, object]],
        images: int,
        encoded_bytes: int,
        image_size: int,
        feature_size: int,
    ) -> None:
        sizes = part_bytes(
            images,
            encoded_bytes=encoded_bytes,
            image_size=image_size,
            feature_size=feature_size,
            views=_versions(made_from),
            frozen_shape=_shape(made_from),
        )
        pixel_bytes, index_bytes = sizes["pixels"], sizes["encoded"] - encoded_bytes
        self.needs_features = feature_size > 0
        self._needed = sum(sizes.values()) - pixel_bytes
        self._view_bytes = sizes["views"]
        self._dir = settings.dir or tempfile.gettempdir()
        with contextlib.ExitStack() as undo, self._disk_errors():
            self.folder, self._lock_file = _open_folder(settings.dir, f"finetune-{run_id}")
            undo.callback(self._release, done=False)
            self._remove_outdated({part: made_from[part] for part in made_from if sizes[part]})
            existing = sum(path.stat().st_blocks * 512 for path in self.folder.iterdir())
            free = free_bytes(settings, self.folder, existing)
            budget = free // 2 if settings.max_bytes is None else settings.max_bytes
            self._limit = min(budget, free)
            if self._needed > self._limit:
                raise self._too_large(self._needed, self._limit)
            self.features = Rows(self.folder / "features", np.float32, images, (feature_size,))
            undo.callback(self.features.close)
            self.views: Rows | None = None
            if sizes["views"]:
                number = _versions(made_from) * images
                self.views = Rows(self.folder / "views", np.float32, number, (feature_size,))
                undo.callback(self.views.close)
            self.frozen: Rows | None = None
            if sizes["frozen"]:
                self.frozen = Rows(self.folder / "frozen", np.float32, images, _shape(made_from))
                undo.callback(self.frozen.close)
            self._damaged = Marks(self.folder / "encoded.damaged", images)
            undo.callback(self._damaged.close)
            self._encoded = EncodedFile(self.folder, images, encoded_bytes)
            undo.pop_all()
        # note: gzip-encoded images that an earlier start decompressed
        self._needed += max(0, self._encoded.size - encoded_bytes)
        available = min(budget, free - EXPORT_BYTES) - self._needed
        limit = "the budget" if budget <= free - EXPORT_BYTES else "the disk, beside the exported model,"
        note = f"pixels are decoded again each epoch: {limit} has {max(0, available):,} bytes left for them"
        self.pixels: Rows | None = None
        if pixel_bytes <= available:
            self.pixels, note = self._open_pixels(images, image_size)
        if self.pixels is None:
            with self._disk_errors():
                (self.folder / "pixels").unlink(missing_ok=True)
                (self.folder / "pixels.crc32c").unlink(missing_ok=True)
        self._other_bytes = sum(sizes.values()) - encoded_bytes - (0 if self.pixels else pixel_bytes)
        self.facts: dict[str, Any] = {
            "folder": str(self.folder),
            "budget_bytes": budget,
            "free_bytes": free,
            "encoded_bytes": encoded_bytes + index_bytes,
            "feature_bytes": sizes["features"],
            "pixel_bytes": pixel_bytes,
            "pixels_kept": self.pixels is not None,
            "encoded_found": int(self.has_encoded(np.arange(images)).sum()),
            "note": note,
        } | {f"{name}_bytes": sizes[part] for name, part in _OPTIONAL.items() if sizes[part]}

    def _open_pixels(self, images: int, image_size: int) -> tuple[Rows | None, str]:
        """Open the file of the pixels; return it, or None without space, and a note for the log."""
        try:
            pixels = Rows(self.folder / "pixels", np.uint8, images, (image_size, image_size, 3))
        except OSError as error:  # the disk has less space than it reported, and pixels are optional
            return None, f"pixels are decoded again each epoch: the disk does not take them: {error.strerror}"
        return pixels, "pixels are decoded once"

    def put_encoded(self, row: int, data: bytes) -> None:
        """Store an image's encoded bytes.

        Raises:
            errors.DataError: the budget or the disk is full: gzip-encoded objects are stored decompressed.
            errors.UnavailableError: they cannot be written for another reason.
        """
        with self._disk_errors():
            fits = self._encoded.put(row, data, self._limit - self._other_bytes)
        if not fits:
            needed = self._other_bytes + self._encoded.size + len(data)
            raise self._too_large(needed, self._limit, so_far=True)

    def mark_damaged(self, row: int) -> None:
        """Note that an image is damaged, for later starts; before its bytes are stored.

        Raises:
            errors.DataError, errors.UnavailableError: as `put_encoded` does.
        """
        with self._disk_errors():
            self._damaged.add(row)

    def damaged(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return which rows are marked as damaged, bool [n]."""
        return self._damaged[rows]

    def encoded(self, row: int) -> bytes | None:
        """Return an image's encoded bytes; None if they are missing or damaged."""
        return self._encoded.get(row)

    def has_encoded(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return which rows have encoded bytes, bool [n]. They are not read, so they may be damaged."""
        return self._encoded.has(rows)

    def has(self, rows: slice) -> bool:
        """Whether all that is computed from these consecutive rows is complete and intact."""
        row_numbers = np.arange(rows.start, rows.stop)
        parts = (self.features, self.frozen, self.pixels)
        return all(bool(part.read(row_numbers)[1].all()) for part in parts if part is not None)

    def has_computed(self, rows: slice) -> bool:
        """Whether the features and the frozen part's outputs of these consecutive rows were all written."""
        return (not self.needs_features or self.features.has(rows)) and (self.frozen is None or self.frozen.has(rows))

    def clear_features(self, part: int) -> None:
        """Discard all that was computed from the images: it is computed again in parts of `part` images."""
        with self._disk_errors():
            made_from = json.loads((self.folder / "made_from.json").read_bytes())
            for name, rows in (("features", self.features), ("views", self.views), ("frozen", self.frozen)):
                if rows is not None and name in made_from:
                    rows.clear()
                    made_from[name]["part"] = part
            (self.folder / "made_from.json").write_text(json.dumps(made_from))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._encoded.close()
        self._damaged.close()
        for rows in (self.features, self.views, self.frozen, self.pixels):
            if rows is not None:
                rows.close()
        self._release(done=kind is None)

    def _release(self, *, done: bool) -> None:
        """Remove the folder, unless a later start of the run can use it; release its lock."""
        if done or self._lock_file is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock_file is not None:
            os.close(self._lock_file)

    def _remove_outdated(self, made_from: Mapping[Part, Mapping[str, object]]) -> None:
        """Remove what an earlier start left, except for needed parts with the same `made_from`."""
        path = self.folder / "made_from.json"
        try:
            old = json.loads(path.read_bytes())
        except (OSError, ValueError):
            old = {}
        new = json.loads(json.dumps(made_from))
        unchanged = [part for part in new if old.get(part) == new[part]]
        for file in self.folder.iterdir():
            if file.name.partition(".")[0] not in unchanged and file.name != "lock":
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        path.write_text(json.dumps(new))

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Convert disk errors into errors with a remedy."""
        try:
            yield
        except OSError as error:
            if error.errno in _NO_SPACE:  # the disk has less space than it reported
                raise self._too_large(self._needed, _free(self._dir)) from error
            if error.errno in _NO_ACCESS:
                raise errors.AccessError(
                    f"cannot write to cache.dir {self._dir!r} as uid {os.getuid()}: {error.strerror}",
                    remedy="mount a writable volume there, or set cache.dir to a folder that is writable",
                ) from error
            raise unwritable(self._dir, error) from error

    def _too_large(self, needed: int, available: int, *, so_far: bool = False) -> errors.DataError:
        suffix = " so far (gzip-encoded ones take more unpacked than was listed)" if so_far else ""
        minimum = f"well above {needed:,}: not all images are unpacked yet" if so_far else f"at least {needed:,}"
        views = f", or lower feature_extraction.views, which take {self._view_bytes:,}" if self._view_bytes else ""
        return errors.DataError(
            f"the images and what is made of them take {needed:,} bytes{suffix}, and the cache may hold {available:,} "
            f"({self._dir} has {_free(self._dir):,} bytes free)",
            remedy=f"set cache.dir to a volume with room, or cache.max_bytes to {minimum}{views}",
        )


def _versions(made_from: Mapping[Part, Mapping[str, object]]) -> int:
    """Return the number of augmented versions of each image."""
    number: Any = made_from.get("views", {}).get(VERSIONS, 0)
    return int(number)


def _shape(made_from: Mapping[Part, Mapping[str, object]]) -> tuple[int, ...]:
    """Return the shape of the frozen part's output for an image; empty if none are cached."""
    shape = made_from.get("frozen", {}).get("shape", ())
    assert isinstance(shape, list | tuple)
    return tuple(shape)


def _open_folder(parent: str, name: str) -> tuple[Path, int | None]:
    """Open the run's folder, created if missing, and lock it; return both.

    Without a lock (None) it is a new temporary folder: another process may still use the run's, such as one that was
    cut off from the cluster and does not know yet that it was superseded.
    """
    if not parent:
        return Path(tempfile.mkdtemp(prefix="finetune-")), None
    folder = Path(parent) / name
    folder.mkdir(parents=True, exist_ok=True)
    lock_file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock_file)
        log.get().warning("cache.in_use", folder=str(folder), why=error.strerror, note="a new folder is made")
        return Path(tempfile.mkdtemp(prefix="finetune-", dir=parent)), None
    return folder, lock_file


def _free(folder: str) -> int:
    """Return the free bytes of a folder's disk; 0 if unknown."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
