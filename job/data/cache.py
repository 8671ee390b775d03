"""What a run keeps on its cache volume: features, encoded bytes and decoded pixels, within a budget.

The three are filled in this order. Features make stage 1 cheap and are small, and the encoded bytes are what all else
is made of: a run needs both. Decoded pixels save decoding each image again each epoch, and are the same numbers: they
are kept where ``cache.max_bytes`` allows. All are files, so that memory does not grow with the number of images.

Where ``cache.dir`` is set, they outlive a run that was stopped or killed, in a folder of the run's own, and its next
start goes on with them. Every row has a checksum, which is compared whenever it is read: a disk may be damaged, and a
process killed in the middle of a row.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from job import __version__, errors
from job.data.cache_files import CHECKSUM_BYTES, RECORD, EncodedFile, Rows, unwritable
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from job.config.settings import CacheSettings
    from job.data.manifest import Manifest


Part = Literal["encoded", "features", "pixels"]

EXPORT_BYTES = 128 * 2**20
"""Left free where there is little room, since the model is exported to the same disk."""

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_ACCESS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}
)
"""What the next start would be told again; other errors of a disk may be gone by then."""


def open_cache(
    settings: CacheSettings,
    *,
    run_id: str,
    manifest: Manifest,
    image_size: int,
    feature_size: int,
    pixels_depend_on: Mapping[str, object],
    features_depend_on: Mapping[str, object],
) -> Cache:
    """Open the cache of a run, with what an earlier start left there, as far as it was made from the same.

    Args:
        settings: where it is stored and how large it may grow.
        run_id: the run that owns it.
        manifest: every image that was listed.
        image_size: height and width of the decoded pixels.
        feature_size: length of a feature vector; 0: no features are needed.
        pixels_depend_on: what pixels depend on besides the data, this version and their size; plain JSON.
        features_depend_on: likewise, what features depend on besides the pixels.

    Raises:
        errors.FinetuneError: as `Cache` does.
    """
    content: dict[str, object] = {"data": manifest.digest(), "finetune": __version__}
    pixels = content | {"image_size": image_size, **pixels_depend_on}
    return Cache(
        settings,
        run_id=run_id,
        made_from={"encoded": content, "pixels": pixels, "features": pixels | {**features_depend_on}},
        images=len(manifest),
        encoded_bytes=int(manifest.size.sum()),
        image_size=image_size,
        feature_size=feature_size,
    )


class Cache:
    """The cache of one run. Use it as a context manager: it is removed at the end of a run that did not fail.

    Rows are those of the manifest. Threads may call `put_encoded` at the same time.

    Args:
        settings: where it lies and how large it may grow.
        run_id: whose it is.
        made_from: each part -> what its content depends on, as plain JSON: what an earlier start left is used again
            where that is the same.
        images: number of rows.
        encoded_bytes: what all images take as they are stored.
        image_size: height and width of the decoded pixels.
        feature_size: length of a feature vector; 0 where no features are wanted.

    Raises:
        errors.DataError: features and encoded bytes do not fit.
        errors.AccessError: the folder cannot be written.
        errors.UnavailableError: the disk fails.

    Attributes:
        folder: where the files are.
        features: float32 [images, feature_size].
        pixels: uint8 [images, image_size, image_size, 3]; None where they do not fit.
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
        index_bytes = images * RECORD.itemsize
        feature_bytes = images * (feature_size * 4 + CHECKSUM_BYTES) if feature_size else 0
        pixel_bytes = images * (image_size * image_size * 3 + CHECKSUM_BYTES)
        self._needed = feature_bytes + encoded_bytes + index_bytes
        self._dir = settings.dir or tempfile.gettempdir()
        with contextlib.ExitStack() as undo, self._explained():
            self.folder, self._lock_file = _open_folder(settings.dir, f"finetune-{run_id}")
            undo.callback(self._leave, done=False)
            self._forget_what_differs(
                {part: made_from[part] for part in made_from if part != "features" or feature_size}
            )
            held = sum(path.stat().st_blocks * 512 for path in self.folder.iterdir())
            free = shutil.disk_usage(self.folder).free + held
            budget = free // 2 if settings.max_bytes is None else settings.max_bytes
            self._room = min(budget, free)
            if self._needed > self._room:
                raise self._too_large(self._needed, self._room)
            self.features = Rows(self.folder / "features", np.float32, images, (feature_size,))
            undo.callback(self.features.close)
            self._encoded = EncodedFile(self.folder, images, encoded_bytes)
            undo.pop_all()
        self._needed += max(0, self._encoded.size - encoded_bytes)  # what an earlier start has unpacked
        self.pixels: Rows | None = None
        room = min(budget, free - EXPORT_BYTES) - self._needed
        if pixel_bytes > room:
            limit = "the budget" if budget <= free - EXPORT_BYTES else "the disk, beside the exported model,"
            note = f"pixels are decoded again each epoch: {limit} has {max(0, room):,} bytes left for them"
        else:
            try:
                self.pixels = Rows(self.folder / "pixels", np.uint8, images, (image_size, image_size, 3))
                note = "pixels are decoded once"
            except OSError as error:  # the disk has less room than it said, and they are not necessary
                note = f"pixels are decoded again each epoch: the disk does not take them: {error.strerror}"
        if self.pixels is None:
            with self._explained():
                (self.folder / "pixels").unlink(missing_ok=True)
                (self.folder / "pixels.crc32c").unlink(missing_ok=True)
        self._beside_encoded = feature_bytes + index_bytes + (pixel_bytes if self.pixels is not None else 0)
        log.get().info(
            "cache.opened",
            folder=str(self.folder),
            budget_bytes=budget,
            free_bytes=free,
            encoded_bytes=encoded_bytes + index_bytes,
            feature_bytes=feature_bytes,
            pixel_bytes=pixel_bytes,
            pixels_kept=self.pixels is not None,
            encoded_found=int(self.has_encoded(np.arange(images)).sum()),
            note=note,
        )

    def put_encoded(self, row: int, data: bytes) -> None:
        """Keep an image's encoded bytes.

        Raises:
            errors.DataError: the budget or the disk is full: images that are stored gzip-encoded take more here.
            errors.UnavailableError: it cannot be written for another reason.
        """
        with self._explained():
            has_room = self._encoded.put(row, data, self._room - self._beside_encoded)
        if not has_room:
            needed = self._beside_encoded + self._encoded.size + len(data)
            raise self._too_large(needed, self._room, so_far=True)

    def encoded(self, row: int) -> bytes | None:
        """Return an image's encoded bytes; None where they are not there, or not as they were written."""
        return self._encoded.get(row)

    def has_encoded(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return of which rows the encoded bytes are there, bool [n]. Nothing is read: they may be damaged."""
        return self._encoded.has(rows)

    def has(self, rows: slice) -> bool:
        """Whether nothing is to be made of these consecutive rows any more: their features and pixels are whole."""
        wanted = np.arange(rows.start, rows.stop)
        return all(bool(part.read(wanted)[1].all()) for part in (self.features, self.pixels) if part is not None)

    def forget_features(self, part: int) -> None:
        """Forget all features, since they are computed again in parts of `part` images."""
        with self._explained():
            self.features.forget()
            made_from = json.loads((self.folder / "made_from.json").read_bytes())
            made_from["features"]["part"] = part
            (self.folder / "made_from.json").write_text(json.dumps(made_from))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._encoded.close()
        self.features.close()
        if self.pixels is not None:
            self.pixels.close()
        self._leave(done=kind is None)

    def _leave(self, *, done: bool) -> None:
        """Remove the folder, unless a later start of the run can use it; let it have the lock."""
        if done or self._lock_file is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock_file is not None:
            os.close(self._lock_file)

    def _forget_what_differs(self, made_from: Mapping[Part, Mapping[str, object]]) -> None:
        """Remove what an earlier start left, but for those parts that are wanted and made from the same."""
        path = self.folder / "made_from.json"
        try:
            before = json.loads(path.read_bytes())
        except (OSError, ValueError):
            before = {}
        now = json.loads(json.dumps(made_from))
        same = [part for part in now if before.get(part) == now[part]]
        for file in self.folder.iterdir():
            if file.name.partition(".")[0] not in same and file.name != "lock":
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        path.write_text(json.dumps(now))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn an error of the disk into one that says what to do."""
        try:
            yield
        except OSError as error:
            if error.errno in _NO_SPACE:  # the disk has less room than it said
                raise self._too_large(self._needed, _free(self._dir)) from error
            if error.errno in _NO_ACCESS:
                raise errors.AccessError(
                    f"cannot write to cache.dir {self._dir!r} as uid {os.getuid()}: {error.strerror}",
                    remedy="mount a writable volume there, or set cache.dir to a folder that is writable",
                ) from error
            raise unwritable(self._dir, error) from error

    def _too_large(self, needed: int, room: int, *, so_far: bool = False) -> errors.DataError:
        why = " so far (gzip-encoded ones take more unpacked than was listed)" if so_far else ""
        least = f"well above {needed:,}: not all images are unpacked yet" if so_far else f"at least {needed:,}"
        return errors.DataError(
            f"the images and what is made of them take {needed:,} bytes{why}, and the cache may hold {room:,} "
            f"({self._dir} has {_free(self._dir):,} bytes free)",
            remedy=f"set cache.dir to a volume with room, or cache.max_bytes to {least}",
        )


def _open_folder(parent: str, name: str) -> tuple[Path, int | None]:
    """Make the folder, or find it; return it with the file whose lock says that it is ours. None: it is a new one.

    A process that was cut off from the cluster, and has not noticed yet that it was superseded, may still work in it.
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
    """Return the free bytes of a folder's disk; 0 where it does not say."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
