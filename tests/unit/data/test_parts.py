"""Folders that are parts of one set are refused or reported; classes that look a little like them are not."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from job.data.folders import Layout
from job.errors import DataError


def names(*patterns: str, count: int = 12) -> list[str]:
    """Return the names of a few images for each pattern."""
    return [pattern.format(number) for pattern in patterns for number in range(count)]


def warnings(images: list[str]) -> list[str]:
    """Return the warnings about folders that are read as classes."""
    with capture_logs() as logs:
        assert Layout({}) == Layout.detect(images)
    return [entry["event"] for entry in logs if entry["log_level"] == "warning"]


@pytest.mark.parametrize("folder", ["part{n}", "batch_{n}", "Disc {n}", "2023-run{n}"])
def test_labels_in_the_names_of_files(folder: str) -> None:
    """Numbered folders that all hold cat_… and dog_… are parts, under any names."""
    tops = [folder.format(n=n) for n in (1, 2, 3)]
    images = names(*(f"{top}/{label}_{{}}.jpg" for top in tops for label in ("cat", "dog")))

    with pytest.raises(DataError, match="parts of one set") as raised:
        Layout.detect(images)

    assert f"{tops[0]!r}" in raised.value.message
    assert "'cat…', 'dog…'" in raised.value.message
    assert "input.layout=classes" in raised.value.remedy
    assert Layout({}) == Layout.detect(images, "classes")


@pytest.mark.parametrize(
    "patterns",
    [
        ["patient_001/scan_{}.jpg", "patient_002/scan_{}.jpg"],
        ["grade1/IMG_{}.jpg", "grade2/DSC_{}.jpg", "grade1/DSC_{}.jpg", "grade2/IMG_{}.jpg"],
        ["type-1/cat{}.jpg", "type-2/dog{}.jpg"],
    ],
)
def test_numbered_folders_are_a_warning(patterns: list[str]) -> None:
    """Patients look like grades: they are classes, with a warning."""
    assert ["input.folders_numbered"] == warnings(names(*patterns))


@pytest.mark.parametrize(
    "patterns",
    [
        ["0/{}.jpg", "1/{}.jpg", "10/{}.jpg"],
        ["cats/cat_{}.jpg", "cats/dog_{}.jpg", "dogs/cat_{}.jpg", "dogs/dog_{}.jpg"],
        ["boeing 737/{}.jpg", "airbus 320/{}.jpg"],
        ["grade1/a/{}.jpg", "grade2/b/{}.jpg"],
    ],
)
def test_classes(patterns: list[str]) -> None:
    """Digits, names without a number and deeper folders are classes as ever."""
    assert [] == warnings(names(*patterns))


@pytest.mark.parametrize("name", ["unlabeled", "Unlabelled", "train_unlabeled", "un-annotated", "unsup"])
def test_unlabelled_images_beside_classes(name: str) -> None:
    """Images without labels are no class; the folder of the others is named."""
    with pytest.raises(DataError, match="images without labels") as raised:
        Layout.detect(names("labeled/cats/{}.jpg", "labeled/dogs/{}.jpg", f"{name}/{{}}.jpg"), where="gs://box")

    assert "gs://box/labeled" in raised.value.remedy


def test_levels_that_differ_are_a_warning() -> None:
    """Defects may be sorted by kind where good parts are not; a class may also be called unlabeled beside flat ones."""
    assert ["input.levels_differ"] == warnings(names("good/{}.jpg", "bad/scratch/{}.jpg", "bad/dent/{}.jpg"))
    assert [] == warnings(names("labeled/{}.jpg", "unlabeled/{}.jpg"))
    assert [] == warnings(names("good/{}.jpg", "bad/2023/{}.jpg"))
