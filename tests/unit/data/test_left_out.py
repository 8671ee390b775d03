"""What of an input is not used is counted and reported once."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from job.data.left_out import EmptyFolders, Examples, Litter, Patterns


def test_examples() -> None:
    """The first three are kept; all are counted."""
    found = Examples()
    for name in ("a", "b", "c", "\udce9"):
        found.add(name)

    assert "4 (a, b, c, …)" == str(found)
    assert "0" == str(Examples())


@pytest.mark.parametrize(("images", "warned"), [(98, True), (99, False)])
def test_images_among_the_litter(images: int, warned: bool) -> None:
    """More than one image in a hundred that is hidden is worth a warning."""
    litter = Litter()
    for name in ("README.md", "metadata.csv", "cats/.1.jpg", "cats/._1.jpg"):
        litter.add(name)

    with capture_logs() as logs:
        litter.report(images)

    expected = [("input.files_ignored", 4), ("input.images_ignored", 1)][: 1 + warned]
    assert expected == [(log["event"], log.get("files", log.get("images"))) for log in logs]
    assert ["metadata.csv"] == litter.tables.examples


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("extra", "extra/1.jpg", True),
        ("extra/", "extra/a/b.jpg", True),
        ("extra", "extras/1.jpg", False),
        ("extra", "a/extra/1.jpg", False),
        ("*/extra", "a/extra/1.jpg", True),
        ("*/masks/", "a/b/masks/1.jpg", True),
        ("*.png", "a/1.png", True),
        ("*.png", "a/1.PNG", False),
        ("a/?.jpg", "a/1.jpg", True),
        ("[!a]*", "b/1.jpg", True),
        ("a+b(1)", "a+b(1)/x.jpg", True),
    ],
)
def test_patterns(pattern: str, name: str, matches: bool) -> None:
    """A pattern is for the whole name or for a folder above it, in the case it has; a star takes slashes."""
    assert matches == Patterns([pattern]).exclude(name)


def test_report_of_patterns() -> None:
    """The log has the count by pattern, and those that matched nothing."""
    excluded = Patterns(["a", "*.png", "nothing"])
    for name in ("a/1.jpg", "a/1.png", "b/1.png", "b/1.jpg"):
        excluded.exclude(name)

    with capture_logs() as logs:
        excluded.report()

    assert 3 == excluded.count
    assert {"a": 2, "*.png": 1} == logs[0]["by_pattern"]
    assert ["nothing"] == logs[1]["patterns"]
    assert ["input.excluded", "input.exclude_unused"] == [log["event"] for log in logs]


@pytest.mark.parametrize(
    ("folders", "depth", "expected"),
    [
        (["cats", "birds", "cats/old"], 1, ["birds"]),
        (["train/birds", "train", "test"], 2, ["test", "train/birds"]),
        ([".git", "__MACOSX", "skipped", "cats/@eaDir"], 1, []),
    ],
)
def test_empty_folders(folders: list[str], depth: int, expected: list[str]) -> None:
    """A folder that would be a class and holds no image is reported, unless it is litter or excluded."""
    found = EmptyFolders(Patterns(["skipped/"]))
    for name in folders:
        found.add(name)

    with capture_logs() as logs:
        found.report(["cats/1.jpg", "train/cats/1.jpg"], depth)

    assert expected == [example for log in logs for example in log["examples"]]
