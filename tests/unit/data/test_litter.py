"""Files that are no images of any class, by their names."""

from __future__ import annotations

import pytest

from job.data.litter import has_table_suffix, is_image_ignored, is_litter


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        "cats/.DS_Store",
        "cats/._2.jpg",
        ".ipynb_checkpoints/x.jpg",
        "cats/.trash/x.jpg",
        "...jpg",
        "__MACOSX/cats/._1.jpg",
        "__MACOSX/cats/1.jpg",
        "cats/Thumbs.db",
        "cats/desktop.ini",
        "cats/~$notes.jpg",
        "cats/1.jpg~",
        "cats/1.jpg.bak",
        "cats/1.jpg.part",
        "cats/1.jpg.crdownload",
        "cats/.1.jpg.swp",
        "cats/1.jpg:Zone.Identifier",
        "cats/1.xmp",
        "cats/IMG_1.AAE",
        "cats/IMG_1.MOV",
        "cats/clip.webm",
        "cats/shop.url",
        "cats/Icon\r",
        "cats/@eaDir/1.jpg",
        "lost+found/#123",
        "README.txt",
        "LICENSE",
        "labels.csv",
        "cats/1.xml",
        "cats/1.JSON",
        "cats/labels.parquet",
    ],
)
def test_litter(name: str) -> None:
    """What tools leave behind, and files that are plainly of another kind, are litter wherever they lie."""
    assert is_litter(name)


@pytest.mark.parametrize(
    "name",
    [
        "cats/1.jpg",
        "cats/1",
        "1.JPEG",
        "cats.v2/a b/%20#?.png",
        "cats/x~$.jpg",
        "a/__MACOSX",
        "cats/./1.jpg",
        "cats/../1.jpg",
        "cats/a:b.jpg",
        "cats/1.part.jpg",
        "cats/mov.png",
    ],
)
def test_no_litter(name: str) -> None:
    """Every other file of a class is a candidate, and so is an image in the root; "." and ".." are not hidden."""
    assert not is_litter(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [(".cats/1.jpg", True), ("cats/.1.jpg", True), ("cats/._1.jpg", False), ("__MACOSX/1.jpg", False), (".x", False)],
)
def test_images_that_are_ignored(name: str, expected: bool) -> None:
    """An image in a hidden folder may be missed by its owner; what a tool writes beside an image is not."""
    assert is_litter(name)
    assert expected == is_image_ignored(name)


def test_tables() -> None:
    """A table among the litter may hold the labels."""
    assert [True, True, False] == list(map(has_table_suffix, ["metadata.csv", "a/train.JSONL", "1.jpg"]))
