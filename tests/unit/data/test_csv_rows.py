"""The rows of a CSV manifest: known, chosen and unknown headers."""

from __future__ import annotations

import pytest

from job.data.columns import Chosen, Fields, SplitSearch
from job.data.csv_rows import read, unknown_header
from job.errors import DataError
from job.uri import Location

TABLE = Location("file", "", "/data/list.csv")


def fields(text: str, chosen: Chosen | None = None) -> list[Fields]:
    """Read the rows of a table, all of which can be used."""
    rows = [row for _, row in read(text.encode(), TABLE, chosen or Chosen(), SplitSearch())]
    assert all(isinstance(row, Fields) for row in rows)
    return rows


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("image_id,target", Chosen()),
        ("id,breed", Chosen("id", "breed")),
        ("filename,breed", Chosen(label="breed")),
        ("id;label", Chosen("id")),
        ("Bild.Nr,ist/Klasse", Chosen("bild.nr", "ist/Klasse")),
    ],
)
def test_headers(header: str, chosen: Chosen) -> None:
    """A header of known names, or of names that the settings give, is no row."""
    delimiter = ";" if ";" in header else ","

    assert [Fields("/data/1", "cat", "")] == fields(f"{header}\n/data/1{delimiter}cat\n", chosen)


def test_chosen_split() -> None:
    """The column of the splits may have any name, too; without the setting, it is not used in silence."""
    text = "image,label,fold\n1.jpg,cat,train\n2.jpg,cat,test\n"

    assert ["train", "test"] == [row.split for row in fields(text, Chosen(split="fold"))]
    search = SplitSearch()
    list(read(text.encode(), TABLE, Chosen(), search))
    with pytest.raises(DataError, match="'fold'"):
        search.check(TABLE)


def test_chosen_group() -> None:
    """The column that the setting names holds the groups; a short row has none."""
    text = "image,label,patient,group\n1,cat, p 1 ,x\n2,cat\n"

    assert ["p 1", ""] == [row.group for row in fields(text, Chosen(group="Patient"))]
    assert ["", ""] == [row.group for row in fields(text)]


@pytest.mark.parametrize(
    ("text", "chosen", "message"),
    [
        ("id,breed\n1,cat\n", Chosen("id"), "line 1 looks like a header, but no column .* label: 'id', 'breed'"),
        ("\nid,breed\n1,cat\n", Chosen("nr", "breed"), r"line 2 .* no column 'nr' \(input.image_column\): 'id', 'br"),
        ("image,label\n", Chosen(split="fold"), r"no column 'fold' \(input.split_column\): 'image', 'label'"),
        ("image,label\n", Chosen(group="patient"), r"no column 'patient' \(input.group_column\): 'image', 'label'"),
        ("1.jpg,cat\n", Chosen("id"), "line 1 is no header for these settings: there is no column 'id'"),
        ("id,Id,ID,label\n", Chosen("iD"), "line 1: 'id' and 'Id' and 'ID' could be the same column"),
        ("image_id,img,label\n", Chosen(), "line 1: 'image_id' and 'img' could be the same column"),
    ],
)
def test_wrong_headers(text: str, chosen: Chosen, message: str) -> None:
    """A header without the columns that are needed or chosen is refused, with its names."""
    with pytest.raises(DataError, match=message) as raised:
        fields(text, chosen)

    setting = "image" if not chosen.split and not chosen.group else "split" if chosen.split else "group"
    assert f"input.{setting}_column" in raised.value.remedy


def test_unknown_header() -> None:
    """Unknown names are read as a row; the error for it says that they look like a header, and lists known names."""
    text = "id,breed\n1.jpg,cat\n"

    assert Fields("id", "breed", "") == fields(text)[0]
    error = unknown_header(text.encode(), TABLE, Chosen())
    assert error is not None
    assert "line 1 looks like a header" in error.message
    assert "'id', 'breed'" in error.message
    assert "imageuri" in error.remedy
    assert "input.label_column" in error.remedy


@pytest.mark.parametrize(
    "text", ["image,label\n1.jpg,cat\n", "1.jpg,cat\n", "train,gs://b/1,cat\n", "gs://b/1;cat\n", "cats/1,class\n", ""]
)
def test_first_rows_that_are_none(text: str) -> None:
    """A known header and a row of an image are no unknown header."""
    assert unknown_header(text.encode(), TABLE, Chosen()) is None


def test_chosen_header_is_known() -> None:
    """A header whose names the settings give is not unknown."""
    assert unknown_header(b"id,breed\n1.jpg,cat\n", TABLE, Chosen("id", "breed")) is None


@pytest.mark.parametrize("text", ["filename, cats, dogs\na.jpg, 1, 0\n", "image;cats;dogs;owls\n\na.jpg;0.0;1.0;0.0\n"])
def test_one_hot_labels(text: str) -> None:
    """Columns of 0 and 1 are no labels: they are named, and what is expected instead."""
    with pytest.raises(DataError) as raised:
        fields(text)

    assert "'cats', 'dogs'" in raised.value.message
    assert "one-hot" in raised.value.message
    assert "'label'" in raised.value.remedy


def test_two_numbers_are_no_one_hot_labels() -> None:
    """A header without a label, and other numbers below it, is an unknown header as before."""
    with pytest.raises(DataError, match="no column is known to hold the label"):
        fields("filename,width,height\na.jpg,640,480\n")
