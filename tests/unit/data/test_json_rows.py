"""The rows of a JSON Lines manifest: known, chosen and unknown keys, and other forms of JSON."""

from __future__ import annotations

import json

import pytest

from job.data.columns import Chosen, ColumnError, Fields, RowError, SplitSearch
from job.data.json_rows import read
from job.errors import DataError
from job.uri import Location

TABLE = Location("file", "", "/data/list.jsonl")


def fields(text: str, chosen: Chosen | None = None) -> list[Fields | RowError]:
    """Read the rows of a table."""
    return [row for _, row in read(text.encode(), TABLE, chosen or Chosen(), SplitSearch())]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('[{"image": "a", "label": "b"}]', "array"),
        ('\n [\n  {"image": "a", "label": "b"}\n]', "array"),
        ("\ufeff[]", "array"),
        ('{\n  "images": [{"file_name": "a"}]\n}', "object of several lines"),
    ],
)
def test_other_json(text: str, form: str) -> None:
    """A JSON array is named as such, and so is an object of several lines; the remedy shows a line."""
    with pytest.raises(DataError, match=f"/data/list.jsonl is a JSON {form}, not JSON Lines") as raised:
        fields(text)

    assert '{"image": "1.jpg", "label": "cat"}' in raised.value.remedy


@pytest.mark.parametrize(
    ("item", "chosen"),
    [
        ({"image_id": "1.jpg", "target": "cat", "split": "test"}, Chosen()),
        ({"id": "1.jpg", "breed": "cat", "fold": "test", "label": "x"}, Chosen("id", "breed", "fold")),
        (
            {
                "imageGcsUri": "1.jpg",
                "classificationAnnotation": {"displayName": "cat"},
                "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": "test"},
            },
            Chosen(),
        ),
        (
            {
                "imageGcsUri": "1.jpg",
                "classificationAnnotation": {"displayName": "x"},
                "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": "train"},
                "breed": "cat",
                "fold": "test",
            },
            Chosen(label="breed", split="fold"),
        ),
    ],
)
def test_keys(item: dict[str, object], chosen: Chosen) -> None:
    """Keys have known names or those of the settings, which count more than Vertex AI's."""
    assert [Fields("1.jpg", "cat", "test")] == fields(json.dumps(item), chosen)


def test_chosen_split_may_be_absent() -> None:
    """A row without the key of the split names none."""
    rows = '{"image": "1.jpg", "label": "cat"}\n{"image": "2.jpg", "label": "cat", "fold": "test", "patient": 7}'

    assert [Fields("1.jpg", "cat", ""), Fields("2.jpg", "cat", "test", "7")] == fields(
        rows, Chosen(split="fold", group="patient")
    )


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        (
            Chosen(group="patient"),
            r"no row has the key 'patient' \(input.group_column\): .*, 'label', 'Patiens'",
        ),
        (Chosen(split="fold"), r"no row has the key 'fold' \(input.split_column\)"),
    ],
)
def test_a_key_that_no_row_has(chosen: Chosen, named: str) -> None:
    """A misspelt key is no key that is always null: the images would be split as if there were no groups."""
    with pytest.raises(DataError, match=named):
        fields('{"image": "1.jpg", "label": "cat"}\n{"image": "2.jpg", "label": "cat", "Patiens": 7}', chosen)


@pytest.mark.parametrize(
    ("item", "chosen", "message"),
    [
        ({"id": "1.jpg", "breed": "cat"}, Chosen(), "no key is known to hold the image URI: 'id', 'breed'"),
        ({"image": "1.jpg", "breed": "cat"}, Chosen(), "no key is known to hold the label: 'image', 'breed'"),
        (
            {"image": "1.jpg", "label": "cat"},
            Chosen("id"),
            "there is no key 'id' (input.image_column): 'image', 'label'",
        ),
        ({"uri": "1", "path": "2", "label": "cat"}, Chosen(), "'uri' and 'path' could be the same: name the right one"),
    ],
)
def test_unknown_keys(item: dict[str, object], chosen: Chosen, message: str) -> None:
    """A row whose keys are unknown cannot be used: it says which keys it has."""
    [error] = fields(json.dumps(item), chosen)

    assert isinstance(error, RowError)
    assert str(error).startswith(message)
    assert isinstance(error, ColumnError) == message.startswith("no key")


def test_split_in_an_unknown_key() -> None:
    """A key that names a split in every row is searched for among those that are not used."""
    rows = [{"image": f"{split}.jpg", "label": "test", "fold": split} for split in ("train", "test")]
    search = SplitSearch()

    list(read("\n".join(map(json.dumps, rows)).encode(), TABLE, Chosen(), search))

    with pytest.raises(DataError, match="column 'fold'"):
        search.check(TABLE)
