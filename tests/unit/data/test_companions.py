"""Folders whose files belong to those of a sibling."""

from __future__ import annotations

import pytest

from job.data import companions
from job.data.tree import Folder
from job.errors import DataError

HASHED = ["7f3a", "b41c", "0d9e", "55aa"]


def check(names: list[str]) -> None:
    """Check names of images."""
    companions.check(names, Folder.of(names), "gs://b/d")


@pytest.mark.parametrize(
    ("one", "other", "stems", "left_out"),
    [
        ("images", "masks", ["1", "2", "3"], "masks/"),
        ("rgb", "Ground_Truth", ["1", "2", "3"], "Ground_Truth/"),
        ("images", "seg-masks", ["img_1", "img_2"], "seg-masks/"),
        ("photo", "thermal", HASHED, "thermal/"),
        ("cats/images", "cats/labels", ["1", "2"], "*/labels/"),
    ],
)
def test_same_names_beside_each_other(one: str, other: str, stems: list[str], left_out: str) -> None:
    """Names that no two classes share by accident, or a folder that is called so, show that one describes the other."""
    names = [f"{one}/{stem}.jpg" for stem in stems] + [f"{other}/{stem}.png" for stem in stems]

    with pytest.raises(DataError) as raised:
        check([*names, "cats/x.jpg", "dogs/y.jpg"])

    assert repr(one) in raised.value.message
    assert repr(other) in raised.value.message
    assert f"--input.exclude '{left_out}'" in raised.value.remedy


@pytest.mark.parametrize(
    "names",
    [
        [f"{label}/{number}.jpg" for label in ("cats", "dogs") for number in range(20)],
        [f"{label}/image ({number}).jpg" for label in ("cats", "dogs") for number in range(20)],
        [f"{label}/frame{number:03}_left.jpg" for label in ("cats", "dogs") for number in range(20)],
        [f"{label}/IMG_{number:04}.jpg" for label in ("cats", "dogs") for number in range(20)],
        [f"cats/{stem}.jpg" for stem in HASHED] + [f"dogs/{stem[::-1]}x.jpg" for stem in HASHED],
        [f"images/{number}.jpg" for number in range(20)] + [f"masks/{number}.png" for number in range(10, 30)],
        [f"{label}/{stem}.jpg" for label in range(9) for stem in HASHED],
        ["cats/a.jpg", "masks/a.png"],
    ],
)
def test_classes_that_number_their_files(names: list[str]) -> None:
    """Numbers that start again in each class, names of many classes and few names prove nothing."""
    check(names)


def test_many_files_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample by hash holds the same names in both folders."""
    monkeypatch.setattr(companions, "_SAMPLE", 100)
    names = [f"{folder}/{number}.jpg" for folder in ("images", "masks") for number in range(1000)]

    with pytest.raises(DataError):
        check(names)
