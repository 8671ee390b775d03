"""The folders of an input, counted and drawn."""

from __future__ import annotations

from job.data.tree import Folder


def test_counts() -> None:
    """Images count for their folder and for all above it; an empty part of a name is no folder."""
    root = Folder.of(["1.jpg", "a/1.jpg", "a/b/1.jpg", "a/b/2.jpg", "/x.jpg", "c//d/1.jpg"])

    assert (2, 6, ["a", "c"]) == (root.images, root.total, list(root.folders))
    a, c = root.folders.values()
    assert (1, 3, 2, 2) == (a.images, a.total, a.folders["b"].images, a.folders["b"].total)
    assert (1, 1, {}) == (c.images, c.total, c.folders)
    assert [False, True] == [a.is_flat, c.is_flat]
    assert ["a/", "a/b/", "c/"] == [path for path, _ in root.walk()]


def test_deep_folders_count_for_the_deepest_that_is_told_apart() -> None:
    """Names may have any number of parts."""
    root = Folder.of(["a/b/c/d/e/f/g.jpg"])

    assert ["a/", "a/b/", "a/b/c/", "a/b/c/d/"] == [path for path, _ in root.walk()]
    assert [0, 0, 0, 1] == [folder.images for _, folder in root.walk()]


def test_drawing() -> None:
    """Two levels are drawn, with their counts; many folders are cut, and bytes that are not UTF-8 escaped."""
    root = Folder.of(
        [f"{letter}/{number}/1.jpg" for letter in "abcdefghijklmn" for number in range(8)] + ["a/\udce9.jpg"]
    )

    lines = root.draw().splitlines()[1:]

    assert "  a/  9 images: 0/ 1, 1/ 1, 2/ 1, 3/ 1, 4/ 1, 5/ 1 and 2 folders more, and 1 beside these" == lines[0]
    assert "  and 2 folders more" == lines[-1]
    assert 13 == len(lines)
    assert "\n  caf\\udce9/  1 images" == Folder.of(["caf\udce9/1.jpg"]).draw()
