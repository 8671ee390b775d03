"""Labels and splits from the names of folders, and files that are ignored."""

from __future__ import annotations

import pytest

from job.data.folders import Layout, is_ignored
from job.data.labels import TEST, TRAIN, VALIDATION
from job.errors import DataError


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        "cats/.DS_Store",
        "cats/._2.jpg",
        ".ipynb_checkpoints/x.jpg",
        "__MACOSX/cats/._1.jpg",
        "__MACOSX/cats/1.jpg",
        "cats/Thumbs.db",
        "cats/desktop.ini",
        "cats/~$notes.jpg",
        "cats/@eaDir/1.jpg",
        "lost+found/#123",
        "README.txt",
        "LICENSE",
        "labels.csv",
        "cats/1.xml",
        "cats/1.JSON",
    ],
)
def test_ignored_files(name: str) -> None:
    """Files that tools leave behind, and files of another type, are ignored in every folder."""
    assert is_ignored(name)


@pytest.mark.parametrize(
    "name", ["cats/1.jpg", "cats/1", "cats/1.gif.exe", "1.JPEG", "cats.v2/a b/%20#?.png", "cats/x~$.jpg", "a/__MACOSX"]
)
def test_files_of_a_class(name: str) -> None:
    """Every file of a class is a candidate, whatever it is called, and so is an image in the root."""
    assert not is_ignored(name)


def test_classes_are_the_first_folders() -> None:
    """The label is the first folder, at any depth; an image in the root has none."""
    names = ["cats/1.jpg", "dogs/2020/05/2.jpg", "3.jpg", "/4.jpg"]

    assert [("cats", 0), ("dogs", 0), None, None] == list(map(Layout.detect(names).parse, names))


def test_splits_are_above_the_classes() -> None:
    """Where all folders are called like splits, the label is the folder below; what lies above it has none."""
    names = ["Train/cats/1.jpg", "val/dogs/a/2.jpg", "valid/cats/3.jpg", "Testing/cats/4.jpg", "Train/5.jpg", "6.jpg"]

    read = list(map(Layout.detect(names).parse, names))

    expected = [("cats", TRAIN), ("dogs", VALIDATION), ("cats", VALIDATION), ("cats", TEST), None, None]
    assert expected == read


@pytest.mark.parametrize(
    "names", [["train/1.jpg", "bus/2.jpg"], ["validation/a/1.jpg", "test/a/2.jpg"], ["train/a/1.jpg", "car/a/2.jpg"]]
)
def test_classes_called_like_splits(names: list[str]) -> None:
    """A class may be called like a split, where the folders cannot be meant as splits."""
    tops = [(name.split("/")[0], 0) for name in names]

    assert tops == list(map(Layout.detect(names).parse, names))


def test_splits_beside_other_folders_are_refused() -> None:
    """Split folders with another folder beside them are refused, for a split would else be trained as a class."""
    with pytest.raises(DataError, match=r"'test', 'train' are splits, but 'extra'"):
        Layout.detect(["train/cats/1.jpg", "test/cats/1.jpg", "extra/1.jpg"])
