"""The pass over the data, interrupted and taken up again."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from odd_images import ALL
from runs import draw

from job import errors, storage
from job.config.settings import CacheSettings, InputSettings
from job.data import cache, dataset, decode, manifest
from job.data.cache_files import RECORD
from job.data.listing import read_listing
from job.data.pass_time import PARTS
from job.observability.progress import Listener, Progress
from job.storage.local import LocalStore
from job.storage.parallel import THREADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from job.observability.progress import Event, Phase

IMAGES = 80
"""Of each of two classes: five ranges of 32 rows."""


@pytest.fixture
def listed(tmp_path: Path) -> manifest.Manifest:
    """Draw small pictures, and list them."""
    for n in range(IMAGES):
        for label, shade in (("dark", 90), ("light", 160)):
            draw(tmp_path / "in" / label / f"{n}.png", shade=shade, seed=n, size=(8, 8))
    return read_listing(InputSettings(uri=str(tmp_path / "in")), storage.open_store)[0]


@contextlib.contextmanager
def opened(
    listed: manifest.Manifest,
    tmp_path: Path,
    *,
    damaged: str = "warn",
    selected: NDArray[np.bool_] | None = None,
    **changes: object,
) -> Iterator[tuple[dataset.Dataset, cache.Cache]]:
    """Open the data, with a cache that outlives a start that fails."""
    sizes = {"images": len(listed), "encoded_bytes": int(listed.size.sum()), "image_size": 8, "feature_size": 0}
    settings = CacheSettings(dir=str(tmp_path / "cache"), **changes)
    parts: dict = {"encoded": {}, "features": {}, "pixels": {}}
    with (
        cache.Cache(settings, run_id="run-1", made_from=parts, **sizes) as kept,
        dataset.Dataset(
            listed,
            kept,
            image_size=8,
            settings=InputSettings(max_pixels=10**6, damaged=damaged),
            threads=2,
            selected=selected,
            open_store=storage.open_store,
        ) as images,
    ):
        yield images, kept


def interrupt(listed: manifest.Manifest, tmp_path: Path, ranges: int) -> list[slice]:
    """Begin the pass, and stop it after some ranges; return them. Which these are depends on the order of arrival."""
    taken = []
    with contextlib.suppress(KeyboardInterrupt), opened(listed, tmp_path) as (images, _):
        for rows, _ in images.ingest(Progress()):
            taken.append(rows)
            if len(taken) == ranges:
                raise KeyboardInterrupt
    return taken


class Newest(Listener):
    """Knows the newest phase."""

    phase: Phase

    def on_advance(self, phase: Phase) -> None:
        """Remember the phase."""
        self.phase = phase


def most_waiting(images: dataset.Dataset) -> int:
    """Take the pass to its end; return how many images at most were held in ranges that were not complete."""
    newest, passed, most = Newest(), 0, 0
    for rows, _ in images.ingest(Progress([newest])):
        passed += rows.stop - rows.start
        most = max(most, newest.phase.done - passed)
    assert len(images.manifest) == passed
    return most


def test_only_what_is_missing_is_read(listed: manifest.Manifest, tmp_path: Path) -> None:
    """What an interrupted pass has downloaded is not read from the store again; what is made of it is the same."""
    with opened(listed, tmp_path) as (images, _):
        assert 5 == len(list(images.ingest(Progress())))
        expected, hashes = images.pixels(np.arange(2 * IMAGES)), images.hashes
    for rows in interrupt(listed, tmp_path, ranges=2):
        for name in listed.names[rows]:
            (tmp_path / "in" / name).unlink()

    with opened(listed, tmp_path) as (images, _):
        assert 3 == len(list(images.ingest(Progress())))
        assert images.usable.all()
        assert not images.quarantined
        np.testing.assert_array_equal(hashes, images.hashes)
        np.testing.assert_array_equal(expected, images.pixels(np.arange(2 * IMAGES)))


def test_images_are_decoded_again_from_what_was_downloaded(listed: manifest.Manifest, tmp_path: Path) -> None:
    """Pixels that are damaged during the run are decoded again, and bytes that are damaged read again."""
    with opened(listed, tmp_path) as (images, kept):
        list(images.ingest(Progress()))
        expected = images.pixels(np.arange(3))
        data = (kept.folder / "pixels").read_bytes()
        (kept.folder / "pixels").open("r+b").write(bytes(192) + data[192:])
        np.testing.assert_array_equal(expected, images.pixels(np.arange(3)))

        before = images.encoded(1)
        (kept.folder / "encoded").open("r+b").write(bytes(kept.folder.joinpath("encoded").stat().st_size))
        assert before == images.encoded(1)
        (tmp_path / "in" / listed.names[2]).unlink()
        with pytest.raises(errors.DataError, match="cannot be read any more, and this run has begun with it"):
            images.encoded(2)


def test_without_pixels(listed: manifest.Manifest, tmp_path: Path) -> None:
    """Pixels that are not cached are decoded each time, to the same values."""
    with opened(listed, tmp_path) as (images, _):
        list(images.ingest(Progress()))
        expected = images.pixels(np.arange(2 * IMAGES))
    with opened(listed, tmp_path, max_bytes=int(listed.size.sum()) + 32 * len(listed)) as (images, kept):
        list(images.ingest(Progress()))
        assert kept.pixels is None
        np.testing.assert_array_equal(expected, images.pixels(np.arange(2 * IMAGES)))


@pytest.mark.parametrize("with_pixels", [True, False])
def test_without_the_pass(listed: manifest.Manifest, tmp_path: Path, *, with_pixels: bool) -> None:
    """Where another worker has made the pass, an image is read once, when it is needed, and kept."""
    with opened(listed, tmp_path) as (images, _):
        list(images.ingest(Progress()))
        expected = images.pixels(np.array([3, 3, 90]))
    budget = {} if with_pixels else {"max_bytes": int(listed.size.sum()) + 32 * len(listed)}
    selected = np.ones(2 * IMAGES, bool)
    selected[7] = False
    with opened(listed, tmp_path, selected=selected, **budget) as (images, kept):
        images.skip_pass()
        assert selected.tolist() == images.usable.tolist()
        assert 0 == kept.has_encoded(np.arange(2 * IMAGES)).sum()
        np.testing.assert_array_equal(expected, images.pixels(np.array([3, 3, 90])))
        assert [3, 90] == np.flatnonzero(kept.has_encoded(np.arange(2 * IMAGES))).tolist()
        for row in (3, 4):
            (tmp_path / "in" / listed.names[row]).unlink()
        np.testing.assert_array_equal(expected, images.pixels(np.array([3, 3, 90])))
        with pytest.raises(errors.DataError, match="cannot be read any more"):
            images.pixels(np.array([4]))


@contextlib.contextmanager
def slow_reads(images: dataset.Dataset, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let reads of more than one image wait until the event is set."""
    read, go_on = images._sources.read, threading.Event()

    def wait_and_read(rows: NDArray[np.intp]) -> Iterator[tuple[int, Any]]:
        if len(rows) > 1:
            go_on.wait(20)
        yield from read(rows)

    with monkeypatch.context() as patch:
        patch.setattr(images._sources, "read", wait_and_read)
        try:
            yield go_on
        finally:
            go_on.set()


def end_of_fetching() -> None:
    """Wait until no thread reads ahead."""
    for thread in threading.enumerate():
        if thread.name == "fetch":
            thread.join(20)


def test_images_are_fetched_ahead(listed: manifest.Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of all usable images are read meanwhile, each kept once; what is gone is left for training."""
    selected = np.ones(2 * IMAGES, bool)
    selected[7] = False
    (tmp_path / "in" / listed.names[4]).unlink()
    with opened(listed, tmp_path, selected=selected) as (images, kept):
        images.skip_pass()
        with slow_reads(images, monkeypatch) as go_on:
            images.fetch_ahead()
            images.pixels(np.array([3]))
            go_on.set()
            end_of_fetching()
        present = kept.has_encoded(np.arange(2 * IMAGES))
        assert [4, 7] == np.flatnonzero(~present).tolist()
        assert int(listed.size[present].sum()) == kept._encoded.size
        with pytest.raises(errors.DataError, match="cannot be read any more"):
            images.pixels(np.array([4]))


def test_store_that_fails_ends_the_fetching(
    listed: manifest.Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store that does not respond costs the reading ahead alone, with a warning; a batch reads what it needs."""
    with opened(listed, tmp_path) as (images, kept):
        images.skip_pass()
        with monkeypatch.context() as patch:

            def fail(_: object) -> Iterator[tuple[int, Any]]:
                raise errors.UnavailableError("no answer", remedy="")

            patch.setattr(images._sources, "read", fail)
            images.fetch_ahead()
            end_of_fetching()
        assert "images.not_fetched_ahead" in capsys.readouterr().out
        assert 0 == kept.has_encoded(np.arange(2 * IMAGES)).sum()
        assert (1, 8, 8, 3) == images.pixels(np.array([3])).shape


def test_fetching_ends_with_the_data(
    listed: manifest.Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that still reads when the data are closed writes nothing more: its files may be others by then."""
    with opened(listed, tmp_path) as (images, kept), slow_reads(images, monkeypatch) as go_on:
        images.skip_pass()
        images.fetch_ahead()
        images.close()
        go_on.set()
        end_of_fetching()
        assert 0 == kept.has_encoded(np.arange(2 * IMAGES)).sum()


def test_interleaved_stores(listed: manifest.Manifest, tmp_path: Path) -> None:
    """Where two stores hold every other image, few ranges are incomplete at a time."""
    shutil.copytree(tmp_path / "in", tmp_path / "other")
    many = listed.take(np.repeat(np.arange(2 * IMAGES), 8))
    root = (np.arange(len(many)) % 2).astype(np.uint16)
    many = dataclasses.replace(many, roots=(str(tmp_path / "in"), str(tmp_path / "other")), root=root)
    with opened(many, tmp_path) as (images, _):
        assert 8 * dataset.RANGE > most_waiting(images)
        assert images.usable.all()


@pytest.mark.parametrize("lost", ["records", "bytes"])
def test_gaps_in_what_is_kept(listed: manifest.Manifest, tmp_path: Path, lost: str) -> None:
    """Where every other image is kept, or kept and whole, few ranges are incomplete at a time."""
    many = listed.take(np.repeat(np.arange(2 * IMAGES), 8))
    interrupt(many, tmp_path, ranges=len(many) // dataset.RANGE)
    [folder] = (tmp_path / "cache").iterdir()
    (folder / "pixels").write_bytes(b"")
    records = np.fromfile(folder / "encoded.index", RECORD)
    odd = records[records["row"] % 2 == 1]
    if lost == "records":
        records[records["row"] % 2 == 0].tofile(folder / "encoded.index")
    else:
        with (folder / "encoded").open("r+b") as encoded:
            for offset, length in odd[["offset", "length"]].tolist():
                encoded.seek(offset)
                encoded.write(bytes(length))
    assert len(many) // 2 == len(odd)

    with opened(many, tmp_path) as (images, kept):
        assert 8 * dataset.RANGE > most_waiting(images)
        assert images.usable.all()
        assert kept.has_encoded(np.arange(len(many))).all()


def test_kept_images_are_read_once(listed: manifest.Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier start has left is read from the disk once, and not at all where nothing is made of it."""
    interrupt(listed, tmp_path, ranges=5)
    [folder] = (tmp_path / "cache").iterdir()
    with (folder / "pixels").open("r+b") as pixels:
        pixels.write(bytes(40 * 8 * 8 * 3))
    read: list[int] = []
    with opened(listed, tmp_path) as (images, kept):
        monkeypatch.setattr(kept, "encoded", lambda row, whole=kept.encoded: read.append(row) or whole(row))
        assert 2 == len(list(images.ingest(Progress())))
    assert list(range(64)) == sorted(read)


def test_lost_bytes_are_fetched_although_pixels_are_kept(
    listed: manifest.Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A range whose pixels are whole is read again where the bytes of one of its images are not kept: those alone."""
    interrupt(listed, tmp_path, ranges=5)
    [folder] = (tmp_path / "cache").iterdir()
    records = np.fromfile(folder / "encoded.index", RECORD)
    records[~np.isin(records["row"], (3, 40))].tofile(folder / "encoded.index")
    fetched: list[str] = []

    def read_many(
        store: LocalStore, objects: Sequence[storage.ObjectInfo]
    ) -> Iterator[tuple[int, bytes | storage.LostObject]]:
        fetched.extend(found.name for found in objects)
        return read_all(store, objects)

    read_all = LocalStore.read_many
    monkeypatch.setattr(LocalStore, "read_many", read_many)
    with opened(listed, tmp_path) as (images, kept):
        assert [0, 32] == sorted(rows.start for rows, _ in images.ingest(Progress()))
        assert kept.has_encoded(np.arange(len(listed))).all()
    assert [listed.names[3], listed.names[40]] == sorted(fetched, key=listed.names.index)


DAMAGED = (3, 40, 90, 91)
"""Rows of images that libjpeg warns about."""


def damage(listed: manifest.Manifest, tmp_path: Path) -> manifest.Manifest:
    """Replace some images, and list them again."""
    for row in DAMAGED:
        (tmp_path / "in" / listed.names[row]).write_bytes(ALL["tf_bad_huffman.jpg"].build())
    return read_listing(InputSettings(uri=str(tmp_path / "in")), storage.open_store)[0]


def test_damaged_images_are_used_and_named(listed: manifest.Manifest, tmp_path: Path) -> None:
    """With input.damaged: warn, images that libjpeg warns about are used and named, in any order of arrival."""
    listed = damage(listed, tmp_path)
    with opened(listed, tmp_path) as (images, _):
        list(images.ingest(Progress()))

    assert images.usable.all()
    assert not images.quarantined
    assert list(DAMAGED) == np.flatnonzero(images.damaged).tolist()


def test_damaged_images_are_quarantined(listed: manifest.Manifest, tmp_path: Path) -> None:
    """With input.damaged: quarantine they are not used, also by a start after an interrupted pass."""
    listed = damage(listed, tmp_path)
    with contextlib.suppress(KeyboardInterrupt), opened(listed, tmp_path, damaged="quarantine") as (images, _):
        for n, _ in enumerate(images.ingest(Progress())):
            if n == 3:
                raise KeyboardInterrupt

    with opened(listed, tmp_path, damaged="quarantine") as (images, _):
        list(images.ingest(Progress()))

    assert list(DAMAGED) == np.flatnonzero(~images.usable).tolist()
    assert [listed.uri(row) for row in DAMAGED] == [image.uri for image in images.quarantined]
    assert {"damaged"} == {image.reason for image in images.quarantined}
    assert not images.damaged.any()


def test_an_interrupted_pass_forgets_no_damaged_image(listed: manifest.Manifest, tmp_path: Path) -> None:
    """A start that finds images in the cache names those that libjpeg warns about, as an undisturbed pass does."""
    listed = damage(listed, tmp_path)
    interrupt(listed, tmp_path, ranges=4)

    with opened(listed, tmp_path) as (images, _):
        list(images.ingest(Progress()))

    assert images.usable.all()
    assert list(DAMAGED) == np.flatnonzero(images.damaged).tolist()


def test_damaged_images_are_named_once(listed: manifest.Manifest, tmp_path: Path) -> None:
    """A start that knows which images are usable neither checks nor names them again."""
    listed = damage(listed, tmp_path)
    with opened(listed, tmp_path, selected=np.ones(len(listed), np.bool_)) as (images, _):
        list(images.ingest(Progress()))

    assert images.usable.all()
    assert not images.damaged.any()


def test_quarantine_does_not_depend_on_the_order_of_arrival(
    listed: manifest.Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that cannot be used are sorted by name, independent of the order in which their bytes arrive."""
    bad = [listed.names[row] for row in (3, 40, 90)]
    for name in bad:
        (tmp_path / "in" / name).unlink()

    def read_backwards(
        store: LocalStore, objects: Sequence[storage.ObjectInfo]
    ) -> Iterator[tuple[int, bytes | storage.LostObject]]:
        yield from list(read_all(store, objects))[::-1]

    read_all = LocalStore.read_many
    monkeypatch.setattr(LocalStore, "read_many", read_backwards)
    with opened(listed, tmp_path) as (images, _):
        list(images.ingest(Progress()))

    assert [listed.uri(row) for row in (3, 40, 90)] == [image.uri for image in images.quarantined]


class Events(Listener):
    """Keeps the facts of `images.read`."""

    def __init__(self) -> None:
        self.facts: list[dict[str, object]] = []

    def on_event(self, event: Event) -> None:
        """Keep them."""
        if event.name == "images.read":
            self.facts.append(dict(event.facts))


SECONDS = 0.05
"""That a slow part takes for each image: fifty times as long as the others, so that a busy machine changes nothing."""


@pytest.mark.parametrize("slow", PARTS)
def test_what_limits_the_pass_is_named(
    listed: manifest.Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """`images.read` names the slow part, be it the store, decoding, the cache's disk, or what is made of the pixels."""

    def slowed(call: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def wait(*args: Any, **kwargs: Any) -> Any:
            time.sleep(seconds)
            return call(*args, **kwargs)

        return wait

    listed, events = listed.take(np.arange(dataset.RANGE)), Events()
    with opened(listed, tmp_path) as (images, kept):
        if slow == "store":
            monkeypatch.setattr(LocalStore, "read", slowed(LocalStore.read, THREADS * SECONDS))
        elif slow == "decoding":
            monkeypatch.setattr(decode, "decode_and_check", slowed(decode.decode_and_check, SECONDS))
        elif slow == "cache":
            monkeypatch.setattr(kept, "put_encoded", slowed(kept.put_encoded, SECONDS))
        for _ in images.ingest(Progress([events])):
            time.sleep(SECONDS * dataset.RANGE * (slow == "features"))

    [facts] = events.facts
    assert (dataset.RANGE, slow) == (facts["images"], facts["limited_by"])


def test_a_pass_that_reads_nothing_names_no_limit(listed: manifest.Manifest, tmp_path: Path) -> None:
    """Where all is in the cache, there was nothing to read."""
    interrupt(listed, tmp_path, ranges=5)
    events = Events()
    with opened(listed, tmp_path) as (images, _):
        assert [] == list(images.ingest(Progress([events])))
    assert [] == events.facts
