"""What may mislead a training is found, and nothing in sound data."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
from surveys import prepared, survey

from job.data import findings
from job.data.labels import TEST, TRAIN, VALIDATION
from job.data.survey import FORMATS, Survey

if TYPE_CHECKING:
    from job.data.prepare import Prepared

SOUND = [number % 2 for number in range(200)]
SPLITS = [VALIDATION if number % 10 < 4 and number % 20 < 10 else TRAIN for number in range(200)]


def find(found: Survey, data: Prepared, share: float = 0.2) -> list[findings.Finding]:
    """Return what is found for a model of 224 pixels."""
    return findings.find(found, data, validation_fraction=share, image_size=224)


def codes(found: Survey, splits: list[int] = SPLITS, share: float = 0.2) -> list[str]:
    """Return the kinds of what is found."""
    return [one.code for one in find(found, prepared(found, splits), share)]


def test_sound_data() -> None:
    """Two classes of 100 images, a fifth of each held out."""
    assert [] == codes(survey(SOUND))


@pytest.mark.parametrize("trait", ["format", "size", "EXIF orientation"])
def test_leak(trait: str) -> None:
    """A class that only one camera took is recognized without a look at the picture."""
    found = survey(SOUND)
    dogs = found.manifest.label == 1
    if trait == "format":
        found.format[dogs] = FORMATS.index("png")
    elif trait == "size":
        found.width[dogs], found.height[dogs] = 640, 480
    else:
        found.orientation[dogs] = 6

    [leak, *_] = find(found, prepared(found, SPLITS))

    assert "leak" == leak.code
    assert trait in leak.message
    assert "'dogs'" in leak.message


def test_no_leak_where_all_classes_are_alike() -> None:
    """One format, one size and one camera for all are no leak, nor is a class of a few images."""
    found = survey(SOUND)
    found.width[:], found.height[:] = 640, 480
    few = survey([*SOUND, *[2] * 9], labels=("cats", "dogs", "owls"))
    few.format[200:] = FORMATS.index("png")

    assert [] == codes(found)
    assert "leak" not in codes(few, [*SPLITS, *[TRAIN] * 9])


def test_copies() -> None:
    """Copies across splits are reported with their number, and so are many copies."""
    found = survey(SOUND, content=[0, 1, 0, *range(3, 200)])
    many = survey(SOUND, content=[number // 2 * 2 if number < 40 else number for number in range(200)])

    [one] = find(found, prepared(found, [TRAIN, *SPLITS[1:2], VALIDATION, *SPLITS[3:]]))

    assert ("copies_across_splits", True) == (one.code, one.message.startswith("1 held-out"))
    assert ["copies"] == codes(many, [TRAIN if number < 40 else code for number, code in enumerate(SPLITS)], 0.16)


def test_near_duplicates() -> None:
    """Near duplicates are reported if they are in two splits, or under two labels."""
    found = survey(SOUND)
    hashes = np.random.default_rng(3).integers(1, 2**63, 200).astype(np.uint64)
    train, validation = SPLITS.index(TRAIN), SPLITS.index(VALIDATION)
    assert found.manifest.label[train] == found.manifest.label[validation]
    found.hashes = hashes.copy()
    assert [] == codes(found)
    found.hashes[validation] = hashes[train] ^ np.uint64(0b10110)
    [one] = find(found, prepared(found, SPLITS))
    found.hashes[validation] = hashes[train + 1]

    assert "near_duplicates_across_splits" == one.code
    assert f"1 of {SPLITS.count(VALIDATION)} held-out" in one.message
    assert found.manifest.uri(validation) in one.message
    assert ["near_duplicates_across_splits", "near_duplicates_across_labels"] == codes(found)


def test_blank_pictures_are_no_duplicates() -> None:
    """All blank pictures have one hash, which means nothing."""
    found = survey(SOUND)
    found.hashes = np.zeros(200, np.uint64)

    assert [] == codes(found)


def test_damaged_images() -> None:
    """Images that libjpeg warns about are named with their warning."""
    found = survey(SOUND)
    found.damaged[[3, 5, 7, 9]] = True
    found.warnings = dict.fromkeys([3, 5, 7, 9], "libjpeg warns: Corrupt JPEG data")

    [finding] = find(found, prepared(found, SPLITS))

    assert "damaged" == finding.code
    assert "4 images" in finding.message
    assert "gs://box/d/3.jpg (libjpeg warns: Corrupt JPEG data)" in finding.message


def test_small_classes_and_imbalance() -> None:
    """Nine images are few; a hundred times as many are too many."""
    found = survey([0] * 910 + [1] * 9)
    splits = [VALIDATION if number % 5 == 0 else TRAIN for number in range(919)]

    messages = {one.code: one.message for one in find(found, prepared(found, splits))}

    assert {"small_classes", "imbalance"} == set(messages)
    assert "'dogs'" in messages["small_classes"]
    assert "'cats' has 910 images, 'dogs' 9" in messages["imbalance"]


def test_validation_side() -> None:
    """Few images to validate on, shares far from what was asked for, and classes that are absent from a split."""
    found = survey(SOUND)
    few = [VALIDATION if number < 29 else TRAIN for number in range(200)]
    one_sided = [VALIDATION if number % 4 == 0 else TEST if number % 8 == 1 else TRAIN for number in range(200)]

    assert ["few_to_validate_on"] == codes(found, few)
    messages = [one.message for one in find(found, prepared(found, one_sided))]
    assert ["'cats' 50 of 100", "'dogs' in the validation", "'cats' in the test"] == [
        part
        for message, part in zip(
            messages, ["'cats' 50 of 100", "'dogs' in the validation", "'cats' in the test"], strict=True
        )
        if part in message
    ]


@pytest.mark.parametrize(
    ("width", "height", "code"), [(111, 300, "tiny"), (6000, 4001, "huge"), (700, 200, "long"), (200, 700, "long")]
)
def test_sizes(width: int, height: int, code: str) -> None:
    """Thumbnails, pictures of a large camera and narrow ones, if there are more than a few."""
    found = survey(SOUND)
    found.width[:12], found.height[:12] = width, height
    few = survey(SOUND)
    few.width[:2], few.height[:2] = width, height

    assert code in codes(found)
    assert code not in codes(few)


def test_tiny_is_relative_to_the_model() -> None:
    """Images are tiny where the model enlarges them more than twice."""
    found = survey(SOUND)
    found.width[:], found.height[:] = 100, 90

    sizes = {
        size: [
            one.code for one in findings.find(found, prepared(found, SPLITS), validation_fraction=0.2, image_size=size)
        ]
        for size in (96, 180, 182, 224)
    }

    assert {96: False, 180: False, 182: True, 224: True} == {size: "tiny" in found for size, found in sizes.items()}


def test_groups_that_the_input_divides() -> None:
    """The input's own splits are kept, and a group that they divide is reported."""
    found = survey(SOUND)
    whole, divided = [number // 2 for number in range(200)], [*range(199), 5]
    splits = [TRAIN if number % 10 < 8 else VALIDATION for number in range(200)]

    assert [] == find(found, prepared(found, splits, whole))
    [one] = find(found, prepared(found, splits, divided))

    assert ("groups_across_splits", True) == (one.code, one.message.startswith("1 of 199 groups"))
    assert found.manifest.uri(5) in one.message


def test_unusable_images_do_not_count() -> None:
    """An image without a readable header has no size."""
    found = survey(SOUND)
    found.usable[:20] = False
    found.width[:20] = found.height[:20] = 0
    rest = prepared(found, SPLITS)
    taken = found.manifest.take(np.arange(20, 200))
    sound = dataclasses.replace(rest, usable=taken, splits=rest.splits[20:])

    assert "tiny" not in [one.code for one in find(found, sound)]
