"""job/data/import_files.py: the manifests that people write."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from job.data.import_files import Kind, Row, read
from job.data.labels import TEST, TRAIN, VALIDATION
from job.errors import DataError
from job.uri import Location

if TYPE_CHECKING:
    from collections.abc import Sequence

BUCKET = Location("gs", "bkt", "lists/list.csv")
DISK = Location("file", "", "/data/lists/list.csv")

VERTEX_CSV = """\
test,gs://bkt/1.jpeg,daisy
TRAINING,gs://bkt/2.gif,dandelion
,gs://bkt/3.png,tulips
gs://bkt/4.bmp,tulips
UNASSIGNED,gs://bkt/5.bmp,daisy
validation,gs://other/6.bmp,daisy
"""

VERTEX_JSON = {
    "imageGcsUri": "gs://bkt/1.jpeg",
    "classificationAnnotation": {
        "displayName": "daisy",
        "annotationResourceLabels": {"aiplatform.googleapis.com/annotation_set_name": "displayName"},
    },
    "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": "test"},
}

# A name may have blanks at its ends, but not be blank. Python's csv.writer does not quote a lone carriage return.
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0:\r"), min_size=1, max_size=30).filter(
    lambda name: name.strip() and not name.startswith(("/", "~/", "./")) and not name.endswith("/")
)
LABELS = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1, max_size=20)
    .map(str.strip)
    .filter(bool)
)
SPLITS = st.sampled_from(["", "train", "TEST", "Validation", "unassigned"])
CODES = {"": 0, "train": TRAIN, "TEST": TEST, "Validation": VALIDATION, "unassigned": 0}
ROWS = st.lists(st.tuples(NAMES, LABELS, SPLITS), max_size=5)

FRAGMENTS = st.sampled_from([
    "image", "label", "split", "train", ",", ";", "\t", '"', '""', "\n", "\r\n", "\r", "\0", " ", "\ufeff", "é",
    "gs://bkt/a.jpg", "gs:/b", "../x", "/abs/x.jpg", "~/a", "file://x", "s3://b/c",
    "{", "}", "[", "]", ":", '{"image": "a.jpg", "label": "b"}', '"label": 1', "NaN", "\\udce9", "\\u0000", "1" * 5000,
    '{"classificationAnnotations": [{}, {}]}', "klasse", "foto",
])  # fmt: skip


def rows_of(text: str | bytes, kind: Kind = "csv", table: Location = BUCKET) -> list[Row]:
    """Read a table to its end."""
    return list(read(text if isinstance(text, bytes) else text.encode(), table, kind))


def write_csv(rows: Sequence[Sequence[str]], delimiter: str = ",", end: str = "\r\n") -> str:
    """Write rows as any spreadsheet does."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    return text.getvalue()


@settings(deadline=None)  # the machine may be busy
@given(ROWS, st.sampled_from(",;\t"), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_csv_is_read_as_it_was_written(rows: list[tuple[str, str, str]], delimiter: str, end: str, mark: bool) -> None:
    """Every name and label survives CSV's quoting, whatever the delimiter, the line ends and the byte order mark."""
    assume(all(".." not in name.split("/") for name, _, _ in rows))

    text = write_csv([("label", "Image URI", "ML_USE"), *((b, a, c) for a, b, c in rows)], delimiter, end)

    found = rows_of("\ufeff" * mark + text)
    assert [(f"lists/{a}", b, CODES[c]) for a, b, c in rows] == [(row.name, row.label, row.split) for row in found]


@settings(deadline=None)
@given(ROWS)
def test_json_lines_are_read_as_they_were_written(rows: list[tuple[str, str, str]]) -> None:
    """Every name and label survives JSON's escapes."""
    assume(all(".." not in name.split("/") for name, _, _ in rows))

    text = "\n\n".join(json.dumps({"file_name": a, "category": b, "split": c, "id": 7}) for a, b, c in rows)

    found = rows_of(text, "jsonl")
    assert [(f"lists/{a}", b, CODES[c]) for a, b, c in rows] == [(row.name, row.label, row.split) for row in found]


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60), st.lists(FRAGMENTS, max_size=12).map("".join)))
def test_any_bytes_are_rows_or_an_error(data: str | bytes) -> None:
    """Any content of a file is either read or rejected with a DataError."""
    data = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    for kind in get_args(Kind):
        for table in (BUCKET, DISK):
            with contextlib.suppress(DataError):
                rows = list(read(data, table, kind))
                assert all(row.name and row.label and row.split in {0, TRAIN, VALIDATION, TEST} for row in rows)


def test_vertex_csv() -> None:
    """Vertex AI's CSV has no header, and its first cell may be left out or empty."""
    expected = [
        Row(1, "gs://bkt", "1.jpeg", "daisy", TEST),
        Row(2, "gs://bkt", "2.gif", "dandelion", TRAIN),
        Row(3, "gs://bkt", "3.png", "tulips", 0),
        Row(4, "gs://bkt", "4.bmp", "tulips", 0),
        Row(5, "gs://bkt", "5.bmp", "daisy", 0),
        Row(6, "gs://other", "6.bmp", "daisy", VALIDATION),
    ]
    assert expected == rows_of(VERTEX_CSV)


def test_vertex_json() -> None:
    """Vertex AI's JSON Lines are read as they are."""
    assert [Row(1, "gs://bkt", "1.jpeg", "daisy", TEST)] == rows_of(json.dumps(VERTEX_JSON), "jsonl")


def test_spreadsheet() -> None:
    """Blank rows, empty cells and other columns are passed over; lines are counted as an editor does."""
    text = (
        '\r\n#,Image,Label,note\r\n1,a.jpg,"tabby, grey",\r\n,,,\r\n2,"b\r\n.jpg", x ,"two\r\nlines"\r\n3,c.jpg,y\r\n'
    )

    expected = [
        Row(3, "gs://bkt", "lists/a.jpg", "tabby, grey", 0),
        Row(5, "gs://bkt", "lists/b\r\n.jpg", "x", 0),
        Row(8, "gs://bkt", "lists/c.jpg", "y", 0),
    ]
    assert expected == rows_of(text)


@pytest.mark.parametrize(
    ("image", "table", "expected"),
    [
        ("a.jpg", BUCKET, ("gs://bkt", "lists/a.jpg")),
        ("./a/b.jpg", BUCKET, ("gs://bkt", "lists/a/b.jpg")),
        ("a//b%20#?.jpg", BUCKET, ("gs://bkt", "lists/a//b%20#?.jpg")),
        ("gs://other/../x y.jpg", BUCKET, ("gs://other", "../x y.jpg")),
        (" gs://other/x.jpg", BUCKET, ("gs://other", "x.jpg")),
        ("a.jpg", Location("gs", "bkt", "list.csv"), ("gs://bkt", "a.jpg")),
        ("12:30.jpg", DISK, ("", "data/lists/12:30.jpg")),
        ("../images/./a.jpg", DISK, ("", "data/images/a.jpg")),
        ("/mnt/x/../a.jpg", DISK, ("", "mnt/a.jpg")),
        ("file:///mnt/a%20b.jpg", DISK, ("", "mnt/a b.jpg")),
        ("gs://bkt/a.jpg", DISK, ("gs://bkt", "a.jpg")),
    ],
)
def test_places(image: str, table: Location, expected: tuple[str, str]) -> None:
    """A name is an object's whole URI, or relative to the manifest's folder, or a path where the manifest has one."""
    (row,) = rows_of(write_csv([(image, "cats")]), table=table)

    assert expected == (row.origin, row.name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\na.jpg,cats\nb.jpg,\nc.jpg\n", "line 3: no label for 'b.jpg'\n  line 4: no label for 'c.jpg'"),
        ("image,label\n,cats\n", "line 2: no image URI"),
        ("image,label\na.jpg,cats,dogs\n", "line 2: 3 cells, but the header has 2"),
        ("image,label,split\na.jpg,cats,fold1\n", "line 2: 'fold1' is no split: expected train, validation, test"),
        ("gs://bkt/a.jpg,cats,dogs\n", "line 1: 'cats' and 'dogs': expected one label"),
        ("image,name\na.jpg,cats\n", "line 1 looks like a header, but no column .* the label: 'image', 'name'"),
        ("photo,label\na.jpg,cats\n", "line 1 looks like a header, but no column .* the image URI: 'photo', 'label'"),
        ("image,path,label\na,b,c\n", "line 1: 'image' and 'path' could be the same column"),
        ('image,label\na.jpg,cats\n"b.jpg,cats\nc.jpg,cats\n', "not CSV from line 3 on"),
        ("a.jpg|cats\n", "line 1: no label for 'a.jpg|cats'"),
        ("../a.jpg,cats\n", "line 1: '../a.jpg' leads out of the manifest's folder"),
        ("/data/a.jpg,cats\n", "line 1: '/data/a.jpg' is on a local disk, but the manifest is in a bucket"),
        ("gs:/bkt/a.jpg,cats\n", "line 1: .* did you mean gs://bkt/a.jpg"),
        ("s3://bkt/a.jpg,cats\n", "line 1: .* s3:// is not supported"),
        ("gs://bkt/,cats\n", "line 1: 'gs://bkt/' is a folder, not an image"),
        ("gs://bkt,cats\n", "line 1: no name after the bucket"),
        (f"{'é' * 600}.jpg,cats\n", "line 1: .* has 1210 bytes"),
        (f"{'x' * 5000}.jpg,cats\n", "line 1: .* has 5,004 characters"),
        ("a\0b,cats\n", "line 1: .* NUL"),
    ],
)
def test_wrong_csv(text: str, message: str) -> None:
    """What is wrong is named with its line and what was expected."""
    with pytest.raises(DataError, match=message):
        rows_of(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"image": "a", "label": "b"}\n{"image": "a",\n', "line 2: not JSON"),
        ('{"image": "a", "label": "b", "weight": NaN}', "line 1: not JSON: NaN"),
        ('{"image": "a", "label": "b"}\n["a", "b"]', "line 2: expected a JSON object, got"),
        ('{"image": "a"}', "line 1: no key is known to hold the label: 'image'"),
        ('{"image": "a", "label": null}', "line 1: no label for 'a'"),
        ('{"label": "a"}', "line 1: no key is known to hold the image URI: 'label'"),
        ('{"image": "", "label": "a"}', "line 1: no image URI"),
        ('{"image": {"path": "a"}, "label": "b"}', "line 1: expected text for image, label, .* got a dict"),
        ('{"image": "a", "label": 1.5}', "line 1: expected text .* got a float"),
        ('{"image": "a", "label": true}', "line 1: expected text .* got a bool"),
        ('{"image": "a", "uri": "b", "label": "c"}', "line 1: 'image' and 'uri' could be the same"),
        ('{"image": "\\ud800", "label": "b"}', "line 1: .* is not Unicode text"),
        ('{"imageGcsUri": "gs://bkt/a", "classificationAnnotations": [{"displayName": "a"}, {"displayName": "b"}]}',
         "line 1: 2 labels: expected one label"),
        ('{"image": ' + "[" * 100_000, "line 1: not JSON"),
    ],
)  # fmt: skip
def test_wrong_json_lines(text: str, message: str) -> None:
    """What is wrong is named with its line and what was expected."""
    with pytest.raises(DataError, match=message):
        rows_of(text, "jsonl")


def test_a_number_is_a_label() -> None:
    """Classes that are numbered, in JSON as numbers, have their digits as names."""
    assert ["10", "2"] == [
        row.label for row in rows_of('{"image": "a", "label": 10}\n{"image": "b", "label": "2"}', "jsonl")
    ]


def test_ten_problems_are_enough() -> None:
    """Wrong rows are named together, but not more than ten of them."""
    with pytest.raises(DataError) as raised:
        rows_of("image,label\n" + "a.jpg,\n" * 50)

    assert "line 11" in raised.value.message
    assert "line 12" not in raised.value.message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("image,label\na.jpg,cats\n".encode("utf-16"), "UTF-16"),
        (b"image,label\na.jpg,cats\nb.jpg,caf\xe9\n", "line 3 has the byte 0xe9"),
    ],
)
def test_other_encodings_are_refused(data: bytes, message: str) -> None:
    """Text that is not UTF-8 is refused, with the place of its first fault."""
    with pytest.raises(DataError, match=message):
        rows_of(data)
