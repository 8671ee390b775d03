"""Images that belong together are on one side of the split."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
from structlog.testing import capture_logs
from surveys import survey

from job.data import groups, split
from job.data.labels import TRAIN, VALIDATION
from job.errors import DataError

if TYPE_CHECKING:
    from job.data.manifest import Manifest


def manifest(names: list[str], content: list[int] | None = None) -> Manifest:
    """Return images with these names, alternately of two classes."""
    found = survey([number % 2 for number in range(len(names))], content=content).manifest
    return dataclasses.replace(found, names=names)


PATIENTS = [f"patient-{number // 10}/{number}.jpg" for number in range(400)]


@pytest.mark.parametrize("pattern", ["patient-([0-9]+)", "patient-[0-9]+", "^[^/]+"])
def test_a_group_is_on_one_side(pattern: str) -> None:
    """Every group has one split, and about a fifth of the groups is held out."""
    images = manifest(PATIENTS)

    splits = split.assign(images, validation_fraction=0.2, test_fraction=0, group_keys=groups.keys(images, pattern))

    by_group = splits.reshape(40, 10)
    assert (by_group == by_group[:, :1]).all()
    assert 3 <= (by_group[:, 0] == VALIDATION).sum() <= 14


def test_adding_groups_moves_none() -> None:
    """The split of a group is that of its name."""
    few, many = (
        split.assign(images, validation_fraction=0.2, test_fraction=0.1, group_keys=groups.keys(images, "^[^/]+"))
        for images in (manifest(PATIENTS[:200]), manifest(PATIENTS))
    )

    assert np.array_equal(few, many[:200])


def test_copies_join_groups() -> None:
    """Groups that share a picture are one, also through a third one."""
    names = [f"g{number % 4}/{number}.jpg" for number in range(12)]
    content = list(range(12))
    content[1] = content[0]  # g1 and g0
    content[6] = content[5]  # g2 and g1
    found = groups.keys(manifest(names, content), "^g[0-9]")
    assert found is not None

    keys, index = groups.merge(found, np.unique(content, return_inverse=True)[1])

    assert 2 == len(keys)
    assert [0 if number % 4 == 3 else 1 for number in range(12)] in ([*index], [*(1 - index)])


def test_too_few_groups() -> None:
    """A class of one group cannot be on both sides."""
    images = manifest(["a/1.jpg", "a/2.jpg"])

    with pytest.raises(DataError, match="has 1 groups of images to share out"):
        split.assign(images, validation_fraction=0.2, test_fraction=0, group_keys=groups.keys(images, "^a"))


def test_names_without_a_group() -> None:
    """A pattern that does not match every name is refused: an image without a group may be of any."""
    with pytest.raises(DataError) as raised:
        groups.keys(manifest([*PATIENTS[:8], "dogs/1.jpg"]), "patient-([0-9]+)")

    assert "1 of 9 names" in raised.value.message
    assert "'dogs/1.jpg'" in raised.value.message


def test_no_images() -> None:
    """Nothing has no groups."""
    keys, index = groups.merge(np.zeros(0, np.uint64), np.zeros(0, np.intp))

    assert (0, 0) == (len(keys), len(index))


def test_without_a_pattern() -> None:
    """Without groups the bytes decide, as ever."""
    images = manifest(PATIENTS)

    plain = split.assign(images, validation_fraction=0.2, test_fraction=0)

    assert groups.keys(images, "") is None
    assert {TRAIN, VALIDATION} == set(plain.tolist())


def test_groups_of_a_table_are_those_of_the_pattern() -> None:
    """The name of a group decides its split, wherever it was read."""
    images = manifest(PATIENTS)
    named = np.array([groups.number(name.partition("/")[0]) for name in PATIENTS], np.uint64)

    assert np.array_equal(groups.keys(images, "^[^/]+"), groups.keys(dataclasses.replace(images, group=named), ""))


def test_an_image_without_a_group_is_its_own() -> None:
    """Its bytes decide its split, as without groups; its copies stay with it."""
    images = manifest(PATIENTS, [number // 2 for number in range(400)])
    named = np.array([groups.number("a" if number < 100 else "") for number in range(400)], np.uint64)
    with capture_logs() as logs:
        found = groups.keys(dataclasses.replace(images, group=named), "")

    assert [("input.groups_found", 1, 300)] == [(log["event"], log["groups"], log["ungrouped"]) for log in logs]
    assert found is not None
    assert 1 + 150 == len(np.unique(found))
    grouped, plain = (
        split.assign(images, validation_fraction=0.2, test_fraction=0, group_keys=group_keys)
        for group_keys in (found, None)
    )
    assert 1 == len(set(grouped[:100].tolist()))
    assert np.array_equal(grouped[100:], plain[100:])


def test_a_column_without_any_group_is_a_warning() -> None:
    """A column that is there and empty was probably not meant."""
    images = dataclasses.replace(manifest(PATIENTS), group=np.zeros(400, np.uint64))

    with capture_logs() as logs:
        groups.keys(images, "")

    assert ["warning"] == [log["log_level"] for log in logs]


def test_numbers_of_names() -> None:
    """Only an empty name is no group."""
    assert 0 == groups.number("")
    assert groups.number("1") not in (0, groups.number("01"))


def test_hashes_of_groups() -> None:
    """The images of a group have one hash, for any bytes; without groups copies have one, as ever."""
    images = manifest(PATIENTS)

    hashes = split.group_hashes(images, groups.keys(images, "patient-([0-9]+)"))

    assert [1] * 40 == [len(set(row)) for row in hashes.reshape(40, 10).tolist()]
    assert 40 == len(set(hashes.tolist()))
    assert np.array_equal(split.hashes(images), split.group_hashes(images, None))
