"""Class names must be distinct for people, file systems and labels.txt."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from job.data.labels import check_labels
from job.errors import DataError


@pytest.mark.parametrize(
    ("one", "other"), [("Cats", "cats"), ("a b", "a  b"), ("cats", "cats "), ("é", "e\u0301"), ("STRASSE", "straße")]
)
def test_labels_that_look_alike_are_refused(one: str, other: str) -> None:
    """Classes that differ only by case, blanks or Unicode form are refused by both names."""
    with pytest.raises(DataError) as raised:
        check_labels([one, "dogs", other])

    assert repr(one) in raised.value.message
    assert repr(other) in raised.value.message


@pytest.mark.parametrize("other", ["c\u0430t", "\uff43at", "cat\u200b"])
def test_labels_that_print_alike_are_refused_with_their_code_points(other: str) -> None:
    """The message has number and name of characters that a person cannot see."""
    with pytest.raises(DataError) as raised:
        check_labels(["cat", "dogs", other])

    assert f"U+{next(ord(letter) for letter in other if not letter.isascii()):04X} " in raised.value.message


def test_labels_that_are_confused_are_a_warning() -> None:
    """Similar names, and one with a character that prints as nothing, are reported."""
    with capture_logs() as logs:
        check_labels(["l1", "ll", "cat", "dog\u200b"])

    assert ["input.labels_similar", "input.labels_invisible"] == [entry["event"] for entry in logs]
    assert ["'l1' and 'll'"] == logs[0]["pairs"]
    assert ["'dog\\u200b'"] == logs[1]["labels"]


@pytest.mark.parametrize("label", ["\u200b", "", " ", "a\nb", "a\x07", "caf\udce9", "a\u2028b"])
def test_labels_that_no_file_can_hold_are_refused(label: str) -> None:
    """A class name that labels.txt could not hold as a line of UTF-8 is refused."""
    with pytest.raises(DataError):
        check_labels([label])


def test_different_labels_are_taken() -> None:
    """Names in any script, with signs, spaces and digits, are fine as long as they differ."""
    check_labels(["0", "00", "2", "10", "tabby, grey", "дом", "猫", "a b", "ab", "👩\u200d🔬", "<b>"])
