"""The lines of a prediction: table, JSON Lines, CSV."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from job.commands.answers import Printer
from job.export.predictor import Answer

if TYPE_CHECKING:
    from job.commands.answers import Format

LABELS = ["daisy", "rose, red", "tulip"]
GOOD = Answer("/a.jpg", np.array([0.125, 0.5, 0.375], np.float32))
BAD = Answer("/b.jpg", None, "corrupt", "cut off")


def lines(form: Format, top_k: int, *answers: Answer) -> list[str]:
    """Return the lines of a result."""
    printer = Printer(form, LABELS, top_k)
    return [*printer.header(), *(printer.line(answer) for answer in answers)]


def test_table() -> None:
    """The most probable label comes first, in columns; what could not be read has its reason."""
    assert lines("table", 1, GOOD, BAD) == ["0.5000  rose, red  /a.jpg", "-       corrupt    /b.jpg  cut off"]
    assert lines("table", 2, GOOD) == ["0.5000  rose, red  0.3750  tulip      /a.jpg"]


def test_json() -> None:
    """Every line is an object with the same keys."""
    good, bad = map(json.loads, lines("json", 9, GOOD, BAD))

    assert ["rose, red", "tulip", "daisy"] == [one["label"] for one in good["predictions"]]
    assert [0.5, 0.375, 0.125] == [one["probability"] for one in good["predictions"]]
    assert (None, None) == (good["reason"], good["detail"])
    assert {"uri": "/b.jpg", "predictions": [], "reason": "corrupt", "detail": "cut off"} == bad


@pytest.mark.parametrize("top_k", [1, 2, 3, 4])
def test_csv(top_k: int) -> None:
    """Every row has the columns of the header, a pair for each rank."""
    header, good, bad = csv.reader(lines("csv", top_k, GOOD, BAD))

    ranks = min(top_k, len(LABELS))
    names = ["label", "probability", "label_2", "probability_2", "label_3", "probability_3"]
    assert ["uri", *names[: 2 * ranks], "reason", "detail"] == header
    assert ["/a.jpg", "rose, red", "0.5"] == good[:3]
    assert ["/b.jpg", *[""] * 2 * ranks, "corrupt", "cut off"] == bad


def test_equal_probabilities() -> None:
    """Of equal ones the label that comes first in the model is first, as in a run's predictions.csv."""
    [line] = lines("json", 3, Answer("/a.jpg", np.array([0.25, 0.375, 0.375], np.float32)))

    assert ["rose, red", "tulip", "daisy"] == [one["label"] for one in json.loads(line)["predictions"]]
