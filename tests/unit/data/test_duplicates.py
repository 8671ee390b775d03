"""Pictures that show nearly the same have near hashes, and near hashes are found."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from surveys import survey

from job.data import demo_pictures, duplicates
from job.data.duplicates import MAX_DISTANCE, near_pairs, perceptual_hash
from job.data.labels import TEST, TRAIN, VALIDATION


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Image.Image]:
    """Return 40 drawn pictures, 300 px and more."""
    folder = tmp_path_factory.mktemp("drawn")
    demo_pictures.draw(folder, count=40, seed=5)
    return [
        Image.open(path).convert("RGB").resize((320, 280)) for path in sorted(folder.rglob("*.*")) if path.is_file()
    ]


def hash_of(image: Image.Image) -> int:
    """Return the hash of a picture as a model of 96 px sees it."""
    return perceptual_hash(np.asarray(image.convert("RGB").resize((96, 96), Image.Resampling.BILINEAR)))


def recompressed(image: Image.Image) -> Image.Image:
    """Return a picture after a strong compression."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=35)
    return Image.open(file)


@pytest.mark.parametrize(
    "change",
    [
        recompressed,
        lambda image: image.resize((160, 140)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.8),
        lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    ],
)
def test_changed_copies_are_near(pictures: list[Image.Image], change: object) -> None:
    """Compressed, shrunk and darkened copies differ from their picture in a few bits; others in many."""
    assert callable(change)
    hashes = [hash_of(image) for image in pictures]
    distances = [(one ^ hash_of(change(image))).bit_count() for one, image in zip(hashes, pictures, strict=True)]
    others = [(one ^ other).bit_count() for number, one in enumerate(hashes) for other in hashes[:number]]

    assert np.mean(np.array(distances) <= 6) >= 0.9
    assert np.mean(np.array(others) <= 6) <= 0.05


@pytest.mark.parametrize("size", [32, 96, 224])
def test_hash(size: int) -> None:
    """A blank picture has the hash 0 at any brightness; half of the bits of another one are set."""
    noise = np.random.default_rng(size).integers(0, 256, (8, 8, 3), np.uint8).repeat(size // 8, 0).repeat(size // 8, 1)

    assert 0 == perceptual_hash(np.full((size, size, 3), 200, np.uint8))
    assert 32 == perceptual_hash(noise).bit_count()
    assert perceptual_hash(noise) == perceptual_hash(noise.copy())
    assert perceptual_hash(noise) != perceptual_hash(noise[::-1])


@pytest.mark.parametrize("distance", range(MAX_DISTANCE + 1))
def test_all_near_pairs_are_found(monkeypatch: pytest.MonkeyPatch, distance: int) -> None:
    """The pairs are those that a comparison of each with each finds, in chunks of any size."""
    monkeypatch.setattr(duplicates, "_CHUNK", 100)
    random = np.random.default_rng(distance)
    hashes = [int(number) for number in random.integers(0, 2**63, 60)]
    for number in hashes[:50]:
        flips = random.choice(64, random.integers(1, 10), replace=False)
        hashes.append(number ^ sum(1 << int(bit) for bit in flips))
    unique = np.unique(np.array(hashes, np.uint64))

    found = [tuple(row) for pairs in near_pairs(unique, distance) for row in pairs.tolist()]

    expected = [
        (a, b, bits)
        for a in range(len(unique))
        for b in range(a + 1, len(unique))
        if (bits := (int(unique[a]) ^ int(unique[b])).bit_count()) <= distance
    ]
    assert expected == sorted(found)


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_compare(count: int) -> None:
    """No hash and one hash have no pairs."""
    assert 0 == sum(map(len, near_pairs(np.arange(1, count + 1, dtype=np.uint64), 6)))


SPLITS = [TRAIN] * 6 + [VALIDATION] * 3 + [TEST]


def test_copies() -> None:
    """Each copy is beside the first image with its bytes; held-out copies of the train split are listed."""
    manifest = survey([0] * 10, content=[0, 1, 0, 3, 4, 0, 1, 7, 7, 9]).manifest
    splits = np.array(SPLITS, np.uint8)

    found = duplicates.find(manifest, splits, None, 6)

    assert [[0, 2], [0, 5], [1, 6], [7, 8]] == found.exact.tolist()
    assert [6] == found.leaking_copies.tolist()
    assert [[], [], []] == [part.tolist() for part in (found.near, found.leaking_near, found.twofold)]
    rows = [(row["a"], row["b"], row["kind"], row["across"]) for row in found.rows(manifest, splits)]
    assert ("gs://box/d/1.jpg", "gs://box/d/6.jpg", "exact", ["split"]) == rows[2]
    assert ("gs://box/d/7.jpg", "gs://box/d/8.jpg", "exact", []) == rows[3]


def test_near_ones() -> None:
    """One image of each split and label stands for all with its hash; leaking images are listed one by one."""
    manifest = survey([0, 0, 0, 0, 0, 1, 0, 0, 0, 0]).manifest
    splits = np.array(SPLITS, np.uint8)
    hashes = np.array([0b1111 << 8 * number for number in range(1, 8)] + [0, 0, 0], np.uint64)
    hashes[2] = hashes[0]  # twice in train: one stands for both
    hashes[6] = hashes[0] ^ np.uint64(1 << 60)  # validation, near train
    hashes[5] = hashes[1]  # another label
    hashes[9] = hashes[6] ^ np.uint64(0b111111)  # test, near validation alone

    found = duplicates.find(manifest, splits, hashes, 6)

    assert [[0, 6, 1], [1, 5, 0], [6, 9, 6]] == found.near.tolist()
    assert [6] == found.leaking_near.tolist()
    assert [1, 5] == found.twofold.tolist()
    rows = [(row["distance"], row["kind"], row["across"]) for row in found.rows(manifest, splits)]
    assert [(1, "near", ["split"]), (0, "near", ["label"]), (6, "near", ["split"])] == rows
    assert [] == duplicates.find(manifest, splits, hashes, 0).near.tolist()


def test_copies_are_not_near_as_well() -> None:
    """Images with the same bytes have the same hash, and are listed once."""
    manifest = survey([0, 0, 0], content=[5, 6, 5]).manifest

    found = duplicates.find(
        manifest, np.array([TRAIN, TRAIN, VALIDATION], np.uint8), np.array([3, 2**64 - 1, 3], np.uint64), 6
    )

    assert ([[0, 2]], [], [2], []) == tuple(
        part.tolist() for part in (found.exact, found.near, found.leaking_copies, found.leaking_near)
    )


def test_only_so_many_pairs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames of a video are all near each other: few pairs are listed, and all that leaks is found."""
    monkeypatch.setattr(duplicates, "_WRITTEN", 5)
    manifest = survey([0] * 40).manifest
    splits = np.array([TRAIN] * 20 + [VALIDATION] * 20, np.uint8)
    hashes = np.array([2**40 | 1 << number % 40 | 1 << 63 for number in range(40)], np.uint64)

    found = duplicates.find(manifest, splits, hashes, 6)

    assert 5 <= len(found.near) <= 20
    assert [*range(20, 40)] == found.leaking_near.tolist()
