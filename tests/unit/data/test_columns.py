"""Which column of a table holds what."""

from __future__ import annotations

import pytest

from job.data.columns import IMAGE, LABEL, ROLES, SPLIT, SplitSearch, is_like_header, known_names
from job.errors import DataError


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["image_id", "target"], [[0], [1], []]),
        (["#", "Image URI", "ML_USE", "Label"], [[1], [3], [2]]),
        (["image_id", "image_uri", "target", "label"], [[1], [3], []]),  # a known name counts more than a weak one
        (["filepath", "class"], [[0], [1], []]),
        (["file-name", "Category", "subset"], [[0], [1], [2]]),
        (["image", "path", "label"], [[0, 1], [2], []]),
        (["id", "breed", "fold"], [[], [], []]),
    ],
)
def test_known_names(columns: list[str], found: list[list[int]]) -> None:
    """Columns are known by their names, in any letter case and with other separators; two may fit."""
    assert [*found, []] == [role.find(columns, "") for role in ROLES]  # none is known to hold groups


@pytest.mark.parametrize(
    ("chosen", "found"), [("breed", [2]), ("Breed", [1]), ("BREED", [1, 2]), ("label", [0]), ("absent", []), ("-", [])]
)
def test_chosen_name(chosen: str, found: list[int]) -> None:
    """A column that the settings name is used instead of one with a known name: the exact name before similar ones."""
    assert found == LABEL.find(["label", "Breed", "breed", ""], chosen)


def test_remedy_lists_settings_and_names() -> None:
    """The remedy names the settings of columns that have known names, and every known name."""
    remedy = known_names()

    assert all((role.setting in remedy) == bool(role.names) for role in ROLES)
    assert all(name in remedy for role in ROLES for name in role.names | role.weak_names)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["id", "breed"], True),
        (["", "foto", "klasse"], True),
        (["photo.name", "class.name"], True),
        (["Bild Nr. 1", "Klasse"], True),
        (["gs://bkt/1", "cat"], False),
        (["cats/1", "cat"], False),
        (["1.jpg", "cat"], False),
        (["1", "cat"], False),
        (["train", "foto", "cat"], False),
        (["foto", ""], False),
        (["foto"], False),
        ([], False),
    ],
)
def test_is_like_header(cells: list[str], expected: bool) -> None:
    """Words look like names of columns; paths, names of images, numbers and Vertex AI's splits do not."""
    assert expected == is_like_header(cells)


def search(*rows: dict[str, object]) -> SplitSearch:
    """Return a search that has seen these rows."""
    found = SplitSearch()
    for row in rows:
        found.add(row)
    return found


def test_split_in_an_unknown_column() -> None:
    """A column that names a split in every row is refused, with the setting that uses it."""
    rows: list[dict[str, object]] = [{"id": "1", "fold": "Train"}, {"id": "2", "fold": " test "}]

    with pytest.raises(DataError, match="names a split in the column 'fold'") as raised:
        search(*rows).check("list.csv")

    assert "input.split_column=fold" in raised.value.remedy


@pytest.mark.parametrize("values", [["train", "train"], ["train", "0"], ["test", ""], ["test", 1], ["test", None]])
def test_other_columns(values: list[object]) -> None:
    """A column that always says train, or not always a split, is an ordinary column."""
    search(*({"fold": value} for value in values)).check("list.csv")


def test_search_ends_early() -> None:
    """Once no column is left that may hold splits, no more rows need to be inspected."""
    assert SplitSearch().is_open
    assert search({"fold": "test"}).is_open
    assert not search({"fold": "test"}, {"fold": "cat"}).is_open
    assert not search({}).is_open


def test_roles_share_no_name() -> None:
    """No name is known for two roles."""
    names = [name for role in (IMAGE, LABEL, SPLIT) for name in [*role.names, *role.weak_names]]

    assert len(set(names)) == len(names)
