"""What the kept model is worth is written down row by row, however many images were held out."""

from __future__ import annotations

import csv
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from job import evaluate, manifest
from job.config import InputSettings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def listed(tmp_path: Path) -> manifest.Manifest:
    """Six images of two classes, whose names need quoting."""
    for number in range(6):
        path = tmp_path / ('a "b"', "c, d")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number]) * 5)
    return manifest.read(InputSettings(uri=str(tmp_path)))[0]


@pytest.fixture
def scores() -> dict[str, evaluate.Scores]:
    """Four images of the validation side and two of the test side."""
    random = np.random.default_rng(0).dirichlet((1, 1), 6).astype(np.float32)
    return {
        name: evaluate.Scores(split=name, rows=rows, probabilities=random[rows], loss=0.0, accuracy=0.0)
        for name, rows in (("validation", np.arange(4)), ("test", np.arange(4, 6)))
    }


def test_held_out_images_are_read_one_by_one(listed: manifest.Manifest, scores: dict[str, evaluate.Scores]) -> None:
    """At most so many images of both sides, each read when it is asked for, with its own probabilities."""
    read: list[int] = []
    images = SimpleNamespace(manifest=listed, encoded=lambda row: read.append(row) or bytes([row]))
    encoded, probabilities = evaluate.held_out(scores, images, 5)

    assert [] == read
    first = next(encoded)
    assert [first[0]] == read
    assert 4 == len(list(encoded))
    assert 5 == len(set(read))
    everything = np.concatenate([side.probabilities for side in scores.values()])
    assert np.array_equal(everything[read], probabilities)


def test_predictions(listed: manifest.Manifest, scores: dict[str, evaluate.Scores]) -> None:
    """predictions.csv has a row for each held-out image, and probabilities that come back bit for bit."""
    lines = list(evaluate.predictions_csv(listed, scores))
    rows = list(csv.DictReader(lines))

    assert 1 + 6 == len(lines)
    assert listed.uri(0) == rows[0]["uri"]
    assert ["validation"] * 4 + ["test"] * 2 == [row["split"] for row in rows]
    assert [listed.labels[label] for label in listed.label] == [row["label"] for row in rows]
    everything = np.concatenate([side.probabilities for side in scores.values()])
    columns = [f"probability_{label}" for label in listed.labels]
    assert np.array_equal(everything, np.array([[row[column] for column in columns] for row in rows], np.float32))
    assert [listed.labels[n] for n in everything.argmax(axis=1)] == [row["prediction"] for row in rows]
