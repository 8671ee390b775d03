"""job/data/split.py: which split an image is assigned to."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from job.data import split
from job.data.labels import TEST, TRAIN, VALIDATION
from job.data.manifest import Manifest
from job.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

Image = tuple[str, int, int]
"""A label, the number of a picture (the same number: the same bytes), and the code of a named split."""


def make(images: Iterable[Image]) -> Manifest:
    """Return a manifest of such images."""
    rows = list(images)
    labels = sorted({label for label, _, _ in rows})
    picture = np.array([picture for _, picture, _ in rows], np.int64)
    count = len(rows)
    return Manifest(
        roots=("gs://bkt",),
        labels=tuple(labels),
        names=[f"{row:06d}.jpg" for row in range(count)],
        root=np.zeros(count, np.uint16),
        label=np.array([labels.index(label) for label, _, _ in rows], np.int32),
        split=np.array([named for _, _, named in rows], np.uint8),
        size=20_000 + picture % 7,
        crc32c=(picture * 7919 % 2**32).astype(np.uint32),
        generation=np.ones(count, np.int64),
        gzip=np.zeros(count, bool),
    )


def assign(images: Iterable[Image], validation: float = 0.2, test: float = 0.0) -> NDArray[np.uint8]:
    """Return the side of each image."""
    return split.assign(make(images), validation_fraction=validation, test_fraction=test)


def many(label: str, pictures: Iterable[int], named: int = 0) -> list[Image]:
    """Return images of a class."""
    return [(label, picture, named) for picture in pictures]


def assign_logged(
    images: Sequence[Image], validation: float = 0.2, test: float = 0.0
) -> tuple[NDArray[np.uint8], set[int]]:
    """Return the side of each image, and the pictures that were moved to fill a side."""
    with capture_logs() as logs:
        sides = assign(images, validation, test)
    uris = [entry["uri"] for entry in logs if entry["event"] == "split.image_moved"]
    return sides, {images[int(uri.removeprefix("gs://bkt/").removesuffix(".jpg"))][1] for uri in uris}


SOME = [image for i, label in enumerate("abc") for image in many(label, range(1000 * i + 1000, 1000 * i + 1020))]
IMAGES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.just(0)), min_size=1, max_size=80)
NAMED = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=60)
FRACTIONS = st.sampled_from([(0.2, 0.0), (0.2, 0.1), (0.01, 0.01), (0.9, 0.0), (0.5, 0.45)])


def test_fractions_are_met() -> None:
    """About the fractions asked for lie on each side, in each class."""
    sides = assign(many("a", range(20_000)) + many("b", range(20_000, 30_000)), validation=0.2, test=0.1)

    for of_class in (sides[:20_000], sides[20_000:]):
        found = [float((of_class == side).mean()) for side in (TRAIN, VALIDATION, TEST)]
        assert [0.7, 0.2, 0.1] == pytest.approx(found, abs=0.015)


def test_the_hash_is_the_published_one() -> None:
    """The hash is SplitMix64, so that the sides are the same with every version of this program."""
    # The first outputs of splitmix64.c, seeded with 0: its state grows by the golden ratio before each.
    golden = 0x9E3779B97F4A7C15
    states = np.array([0, golden, golden * 2 % 2**64], np.uint64)

    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert expected == split._mix(states).tolist()


def test_hash_is_of_checksum_and_size() -> None:
    """Pictures that differ in the checksum or in the size alone have different hashes, and copies have the same."""
    size, crc32c = np.array([1, 2, 1, 1], np.int64), np.array([5, 5, 6, 5], np.uint32)
    manifest = dataclasses.replace(make(many("a", range(4))), size=size, crc32c=crc32c)

    first, other_size, other_checksum, copy = split.hashes(manifest).tolist()

    assert 3 == len({first, other_size, other_checksum})
    assert first == copy


@settings(deadline=None)  # the machine may be busy
@given(IMAGES, FRACTIONS, st.randoms(use_true_random=False))
def test_order_and_names_do_not_matter(images: list[Image], fractions: tuple[float, float], random: object) -> None:
    """An image's side does not depend on the order in which images were listed, nor on their names."""
    order = list(range(len(images)))
    random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis has no type for it
    try:
        sides = assign(images, *fractions)
    except DataError:
        with pytest.raises(DataError):
            assign([images[i] for i in order], *fractions)
        return

    assert sides[order].tolist() == assign([images[i] for i in order], *fractions).tolist()


@settings(deadline=None)
@given(IMAGES, FRACTIONS)
def test_every_class_is_on_every_side(images: list[Image], fractions: tuple[float, float]) -> None:
    """Every class has an image in each split, or the error names the class with too few; copies share a split."""
    wanted = {TRAIN, VALIDATION, TEST} if fractions[1] else {TRAIN, VALIDATION}
    pictures = {label: {p for other, p, _ in images if other == label} for label, _, _ in images}
    shared = any(pictures[one] & pictures[two] for one in pictures for two in pictures if one < two)
    few = [label for label, own in pictures.items() if len(own) < len(wanted)]
    if few and not shared:
        with pytest.raises(DataError, match=f"class '[{''.join(few)}]' has [12] different"):
            assign(images, *fractions)
        return
    try:
        sides = assign(images, *fractions)
    except DataError:
        if not shared:  # two classes of the same pictures may have too few for both
            raise
        return

    side_of: dict[int, set[int]] = {}
    for (_, picture, _), side in zip(images, sides.tolist(), strict=True):
        side_of.setdefault(picture, set()).add(side)
    assert all(len(found) == 1 for found in side_of.values())
    for label, own in pictures.items():
        assert wanted == set().union(*(side_of[picture] for picture in own)), label


@settings(deadline=None)
@given(IMAGES, IMAGES, FRACTIONS)
def test_new_images_never_move_old_ones(old: list[Image], new: list[Image], fractions: tuple[float, float]) -> None:
    """Adding images leaves every old one where it was, except those that were or are moved to fill a side."""
    old = [*SOME, *old]
    before, moved_before = assign_logged(old, *fractions)
    after, moved_after = assign_logged([*old, *new], *fractions)

    for (_, picture, _), one, other in zip(old, before.tolist(), after.tolist(), strict=False):
        assert one == other or picture in moved_before | moved_after


def test_moved_image_returns() -> None:
    """An image that was moved to fill a side returns when an added image belongs there by its hash."""
    old = many("a", hashed(TRAIN, 5)) + many("b", range(2000, 2040))
    new = many("a", hashed(VALIDATION, 1))

    before, moved = assign_logged(old)
    after = assign([*old, *new])

    [returned] = np.flatnonzero(before != after[:-1]).tolist()
    assert {old[returned][1]} == moved
    assert (VALIDATION, TRAIN, VALIDATION) == (before[returned], after[returned], after[-1])


@settings(deadline=None)
@given(NAMED, FRACTIONS)
def test_named_splits_stand(images: list[Image], fractions: tuple[float, float]) -> None:
    """A named image stays, except that a validation side is cut from train where none is named; copies follow."""
    try:
        sides = assign(images, *fractions)
    except DataError:
        return

    named = [image[2] for image in images]
    cut = VALIDATION not in named
    stays: dict[int, set[int]] = {}
    for (_, picture, name), side in zip(images, sides.tolist(), strict=True):
        if name in (VALIDATION, TEST) or (name == TRAIN and not cut):
            assert name == side
            stays.setdefault(picture, set()).add(side)
        elif name == TRAIN:
            assert side in (TRAIN, VALIDATION)
    for (_, picture, name), side in zip(images, sides.tolist(), strict=True):
        if name == 0 and picture in stays:
            assert max(stays[picture]) == side


@pytest.mark.parametrize("order", [(TRAIN, VALIDATION, TEST), (VALIDATION, TRAIN), (TEST, TRAIN), (TEST, VALIDATION)])
def test_copy_of_a_held_out_picture_is_held_out(order: tuple[int, ...]) -> None:
    """Where a picture is named in several splits, its unnamed copy is held out, in any order of the listing."""
    named = [("a", 7, side) for side in order]
    others = [("a", 50 + side, side) for side in (TRAIN, VALIDATION)]

    for images in ([*named, *others, ("a", 7, 0)], [*named[::-1], *others, ("a", 7, 0)]):
        assert max(order) == assign(images)[-1]


def test_test_fraction_is_for_unnamed_data_only() -> None:
    """Where the input names any split, no test side is made; where it names none, one is."""
    named = many("a", range(200), TRAIN) + many("b", range(200, 400), TRAIN) + many("a", range(400, 500))

    assert {TRAIN, VALIDATION} == set(assign(named, test=0.3).tolist())
    assert {TRAIN, VALIDATION, TEST} == set(assign([(a, p, 0) for a, p, _ in named], test=0.3).tolist())


def test_train_and_test_named() -> None:
    """Validation is cut from the train images alone, by the same hash as without named splits."""
    images = many("a", range(200), TRAIN) + many("b", range(200, 400), TRAIN)
    test = many("a", range(1000, 1020), TEST) + many("b", range(2000, 2020), TEST)

    sides = assign(images + test)

    assert [TEST] * 40 == sides[400:].tolist()
    assert assign([(label, p, 0) for label, p, _ in images]).tolist() == sides[:400].tolist()


@pytest.mark.parametrize(("label", "count"), [("dogs", 1), ("dogs", 2)])
def test_too_few_pictures(label: str, count: int) -> None:
    """A class with fewer different pictures than sides is named with its count and the minimum: copies count once."""
    images = many("cats", range(40)) + many(label, [100] * count)

    with pytest.raises(DataError, match=rf"'dogs' has 1 different pictures .* \({count} files\): at least 2 are"):
        assign(images)


def test_the_nearest_picture_is_moved() -> None:
    """A side that a class lacks gets its picture of the lowest hash, train that of the highest. It is logged."""
    images = many("a", range(3)) + many("b", range(100, 300))
    lowest, middle, highest = np.argsort(split.hashes(make(images))[:3]).tolist()

    nothing_held_out, moved = assign_logged(images, 1e-9)
    assert (VALIDATION, TRAIN, TRAIN) == tuple(nothing_held_out[[lowest, middle, highest]])
    assert {lowest} == moved & {0, 1, 2}

    all_held_out, moved = assign_logged(images, 1 - 1e-9)
    assert (VALIDATION, VALIDATION, TRAIN) == tuple(all_held_out[[lowest, middle, highest]])
    assert {highest} == moved & {0, 1, 2}


def test_copies_move_together() -> None:
    """A picture that is moved takes its copies along, whatever class they are labelled as."""
    images = many("a", [1, 2, 1]) + many("b", [1, 3, 4, 5])

    sides = assign(images, validation=1e-9)

    assert sides[0] == sides[2] == sides[3]
    assert {TRAIN, VALIDATION} == set(sides[:3].tolist()) == set(sides[3:].tolist())


def test_class_absent_from_a_named_side() -> None:
    """A class that the input's own validation split leaves out is warned of, and not moved there."""
    images = many("a", range(10), TRAIN) + many("b", range(10, 20), TRAIN) + many("a", range(20, 25), VALIDATION)

    with capture_logs() as logs:
        sides = assign(images)

    assert [image[2] for image in images] == sides.tolist()
    assert [("split.class_absent", "validation", ["b"])] == [(e["event"], e["split"], e["classes"]) for e in logs]


def shares(images: Iterable[Image], validation: float = 0.2, test: float = 0.0) -> list[dict[str, object]]:
    """Return the facts of the warnings of classes whose share of validation images is off."""
    with capture_logs() as logs:
        assign(images, validation, test)
    return [entry for entry in logs if entry["event"] == "split.share_deviates"]


def hashed(side: int, count: int, fraction: float = 0.2) -> list[int]:
    """Return the first pictures that their hash puts on a side."""
    below = (split.hashes(make(many("a", range(1000)))) / 2.0**64) < fraction
    return np.flatnonzero(below == (side == VALIDATION))[:count].tolist()


@pytest.mark.parametrize(
    ("held_out", "trained", "is_off"),
    [(1, 1, True), (2, 2, True), (2, 3, False), (1, 9, False), (1, 10, True), (20, 80, False), (41, 59, True)],
)
def test_share_of_a_class_is_off(held_out: int, trained: int, is_off: bool) -> None:
    """A class with under half or over twice the requested share on validation is warned of, with its numbers."""
    images = many("a", hashed(VALIDATION, held_out)) + many("a", hashed(TRAIN, trained))
    others = many("b", hashed(VALIDATION, 120)[100:]) + many("b", hashed(TRAIN, 180)[100:])

    found = shares(images + others)

    assert is_off == bool(found)
    for warning in found:
        assert ("warning", 0.2, 1) == (warning["log_level"], warning["requested"], warning["classes"])
        assert {"a": f"{held_out} of {held_out + trained}"} == warning["validation"]


def test_shares_of_named_splits() -> None:
    """A split that the input names has the share that its author chose: no warning. Named test images do not count."""
    validation, train = hashed(VALIDATION, 20), hashed(TRAIN, 80)
    assert [] == shares(many("a", train, TRAIN) + many("a", validation[:1], VALIDATION))
    test = many("a", range(2000, 2300), TEST)
    assert [] == shares(many("a", validation, TRAIN) + many("a", train, TRAIN) + test)


def test_many_classes_whose_share_is_off() -> None:
    """At most ten classes are listed; the others are counted."""
    images = [image for i in range(30) for image in many(f"{i:02}", range(100 * i, 100 * i + 2))]

    [warning] = shares(images)

    assert (30, [f"{i:02}" for i in range(10)]) == (warning["classes"], list(warning["validation"]))


def test_unassigned_beside_named_splits() -> None:
    """Images without a split beside named ones go by their hash; the only one of its class goes to train."""
    images = many("a", range(50), TRAIN) + many("a", range(50, 60), VALIDATION)

    for picture in range(100, 130):
        sides = assign([*images, ("b", picture, 0)], validation=0.9)
        assert TRAIN == sides[-1]
    assert {TRAIN, VALIDATION} == set(assign(images + many("b", range(100, 130)))[60:].tolist())


def test_rows() -> None:
    """The published rows name each image's side."""
    manifest = make(many("a", range(2)) + many("b", range(5, 7)))

    rows = list(split.rows(manifest, np.array([TRAIN, VALIDATION, TEST, TRAIN], np.uint8)))

    assert ["train", "validation", "test", "train"] == [row["split"] for row in rows]
    assert {"uri": "gs://bkt/000000.jpg", "label": "a", "split": "train"} == rows[0]
