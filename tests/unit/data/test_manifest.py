"""The manifest: its columns, its identity, and when it cannot be trained on."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from listed_inputs import ANIMALS, put, read_from

from job import storage
from job.data.manifest import check_budget, check_usable, pack, unpack
from job.data.quarantine import Quarantined
from job.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from job.data.manifest import Manifest


def test_columns_are_small(tmp_path: Path) -> None:
    """The columns have the types that are promised: 28 bytes an image."""
    manifest, _ = read_from(put(tmp_path, ANIMALS))

    names = ("root", "label", "split", "size", "crc32c", "generation", "gzip")
    columns: list[np.ndarray[Any, Any]] = [getattr(manifest, name) for name in names]
    expected = [np.uint16, np.int32, np.uint8, np.int64, np.uint32, np.int64, np.bool_]
    assert expected == [column.dtype for column in columns]
    assert 28 == sum(column.nbytes for column in columns) / len(manifest)


def test_groups_are_a_column_only_if_named(tmp_path: Path) -> None:
    """The groups of a table take 8 bytes an image, and no others do; they follow their images."""
    manifest = grouped(tmp_path, lambda number: f"p{number // 4}")

    assert manifest.group is not None
    assert (np.uint64, len(ANIMALS), 10) == (manifest.group.dtype, len(manifest), len(set(manifest.group.tolist())))
    rows = np.array([5, 2])
    assert manifest.group[rows].tolist() == manifest.take(rows).group.tolist()  # type: ignore[union-attr]
    assert manifest.group.tolist() == unpack(pack(manifest)).group.tolist()  # type: ignore[union-attr]
    assert read_from(tmp_path / "list.csv")[0].group is None
    assert unpack(pack(read_from(tmp_path / "list.csv")[0])).group is None


def grouped(folder: Path, name: Callable[[int], str]) -> Manifest:
    """Return the manifest of a table with groups."""
    put(folder, ANIMALS)
    lines = [f"{image},{image.split('/')[0]},{name(number)}" for number, image in enumerate(ANIMALS)]
    (folder / "list.csv").write_text("\n".join(["image,label,patient", *lines]))
    return read_from(folder / "list.csv", group_column="patient")[0]


# --- identity ---


def test_digest_depends_on_the_groups(tmp_path: Path) -> None:
    """Another grouping is another split, and so other data; without groups the digest is that of version 0.1.0."""
    fours, fives = (grouped(tmp_path, lambda number, size=size: f"p{number // size}") for size in (4, 5))  # type: ignore[misc]
    none = read_from(tmp_path / "list.csv")[0]

    assert 3 == len({fours.digest(), fives.digest(), none.digest()})
    assert none.digest() == dataclasses.replace(fours, group=None).digest()


def test_digest_does_not_depend_on_where_or_when(tmp_path: Path) -> None:
    """The same files elsewhere, written in another order at another time, or named by a manifest, are the same data."""
    digest = read_from(put(tmp_path / "one", ANIMALS))[0].digest()

    other = put(tmp_path / "two", reversed(ANIMALS))
    for name in ANIMALS:
        os.utime(other / name, (1, 1))
    (tmp_path / "list.csv").write_text("".join(f"one/{name},{name.split('/')[0]}\n" for name in reversed(ANIMALS)))

    assert digest == read_from(other)[0].digest()
    assert digest == read_from(tmp_path / "list.csv")[0].digest()


@pytest.mark.parametrize("change", ["name", "bytes", "label", "split", "less", "more"])
def test_digest_depends_on_the_data(tmp_path: Path, change: str) -> None:
    """Another name, content, label, split or number of images is other data."""
    rows = [[name, name.split("/")[0], ""] for name in ANIMALS]
    put(tmp_path, ANIMALS)

    def digest() -> str:
        (tmp_path / "list.csv").write_text("image,label,split\n" + "".join(",".join(row) + "\n" for row in rows))
        return read_from(tmp_path / "list.csv")[0].digest()

    before = digest()
    match change:
        case "name":
            shutil.move(tmp_path / rows[0][0], tmp_path / "cats/new.jpg")
            rows[0][0] = "cats/new.jpg"
        case "bytes":
            put(tmp_path, [rows[0][0]], rows[0][0].encode()[::-1])
        case "label":
            rows[0][1] = "dogs"
        case "split":
            rows[0][2] = "train"
        case "less":
            del rows[0]
        case _:
            put(tmp_path, ["more.jpg"])
            rows.append(["more.jpg", "dogs", ""])

    assert before != digest()


def test_take(tmp_path: Path) -> None:
    """Some of the rows are a manifest again, with the same labels, and other data."""
    manifest, _ = read_from(put(tmp_path, ANIMALS))

    some = manifest.take(np.array([3, 1]))

    assert [manifest.names[3], manifest.names[1]] == some.names
    assert [manifest.object(3), manifest.object(1)] == [some.object(0), some.object(1)]
    assert manifest.labels == some.labels
    assert manifest.digest() != some.digest()


def test_rows(tmp_path: Path) -> None:
    """The published rows are plain JSON with what was listed."""
    put(tmp_path, ["train/a/1.jpg", "train/b/1.jpg"])
    manifest, _ = read_from(tmp_path)
    info = storage.open_store(str(tmp_path)).stat("train/a/1.jpg")

    first, _ = manifest.rows()

    assert info
    described = {"size": info.size, "crc32c": info.crc32c, "generation": info.generation}
    assert {"uri": f"{tmp_path}/train/a/1.jpg", "label": "a", "split": "train", **described} == first
    assert first == json.loads(json.dumps(first, allow_nan=False))


# --- what cannot be trained on ---


def bad(count: int, label: str = "cats") -> list[Quarantined]:
    """Return quarantined images."""
    return [Quarantined(f"/d/{label}/bad{i}.jpg", label, 9, "corrupt", f"detail {i}") for i in range(count)]


def test_the_budget_is_a_part_of_all(tmp_path: Path) -> None:
    """As many unusable images as the budget are taken, one more is an error with the counts and the first of them."""
    manifest, _ = read_from(put(tmp_path, [f"{label}/{i}.jpg" for label in ("cats", "dogs") for i in range(49)]))

    check_usable(manifest, bad(2), 0.02)
    with pytest.raises(DataError, match=r"3 of 101 images under .*3 corrupt.*0\.02.*\n  /d/cats/bad0\.jpg: detail 0"):
        check_usable(manifest, bad(3), 0.02)


def test_budget_of_one_class(tmp_path: Path) -> None:
    """The budget alone asks for nothing that only a training needs: one class is enough."""
    manifest, _ = read_from(put(tmp_path, [f"cats/{number}.jpg" for number in range(98)]))

    check_budget(manifest, bad(2), 0.02)
    with pytest.raises(DataError, match="3 of 101 images"):
        check_budget(manifest, bad(3), 0.02)


@pytest.mark.parametrize(
    ("images", "lost", "refused"), [(49, 5, False), (49, 6, True), (22, 3, False), (22, 4, True), (16, 4, False)]
)
def test_the_budget_of_a_class(tmp_path: Path, images: int, lost: int, refused: bool) -> None:
    """A class of over 20 may lose 3 or a tenth of its images, though all are within their budget."""
    names = [f"cats/{number}.jpg" for number in range(images)] + [f"dogs/{number}.jpg" for number in range(1000)]
    manifest, _ = read_from(put(tmp_path, names))

    if refused:
        with pytest.raises(
            DataError, match=rf"{lost} of {images + lost} images of the class 'cats' .*0\.1.*\n  /d/cats/bad0"
        ):
            check_usable(manifest, bad(lost), 0.01)
    else:
        check_usable(manifest, bad(lost), 0.01)
    check_usable(manifest, bad(lost), 0.3)


def test_a_class_without_usable_images(tmp_path: Path) -> None:
    """A class that lost all its images is an error that names it and what they suffered from."""
    manifest, _ = read_from(put(tmp_path, ANIMALS))
    cats_only = manifest.take(np.flatnonzero(manifest.label == 0))

    with pytest.raises(DataError, match=r"no image of the class 'dogs' .* of 40 images \(20 corrupt\)"):
        check_usable(cats_only, bad(20, "dogs"), 1.0)


def test_one_class(tmp_path: Path) -> None:
    """One class is an error with its name and count."""
    with pytest.raises(DataError, match=r"two classes or more are needed, found 1 \('cats', 2 images\) under"):
        check_usable(*read_from(put(tmp_path, ["cats/1.jpg", "cats/2.jpg"])), 0)


def test_a_class_that_is_never_trained(tmp_path: Path) -> None:
    """A class in validation alone is an error that names it."""
    names = ["train/a/1.jpg", "train/b/1.jpg", "validation/a/2.jpg", "validation/77/1.jpg"]

    with pytest.raises(DataError, match=r"class '77' .* none to train on"):
        check_usable(*read_from(put(tmp_path, names)), 0)
