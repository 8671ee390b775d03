"""Another labelled set: labels matched by name, and the documents of its metrics."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from job import storage
from job.config.settings import InputSettings
from job.data.listing import read_listing
from job.errors import DataError
from job.evaluation.labelled_set import LabelledSet, relabel
from job.evaluation.splits import split_document

if TYPE_CHECKING:
    from pathlib import Path

    from job.data.manifest import Manifest

NAMES = ("ants", "cats", "dogs")


def listed(folder: Path, **counts: int) -> Manifest:
    """Return a set with this number of images of each class."""
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        for number in range(count):
            (folder / label / f"{number}.jpg").write_bytes(f"{label}{number}".encode())
    return read_listing(InputSettings(uri=str(folder)), storage.open_store)[0]


def test_labels_are_matched_by_name(tmp_path: Path) -> None:
    """The numbers of the labels are the model's, for any classes of the set."""
    images, unknown = relabel(listed(tmp_path, dogs=1, ants=2), NAMES, ignore_unknown=False)

    assert (NAMES, [0, 0, 2], {}) == (images.labels, images.label.tolist(), unknown)
    assert [name.split("/")[0] for name in images.names] == [NAMES[label] for label in images.label.tolist()]


def test_unknown_labels(tmp_path: Path) -> None:
    """They are an error that names them, or are left out and counted."""
    found = listed(tmp_path, birds=2, cats=3, fish=1)

    with pytest.raises(DataError, match="does not know 'birds', 'fish': 3 of 6 images") as raised:
        relabel(found, NAMES, ignore_unknown=False)
    assert "--ignore-unknown" in raised.value.remedy
    images, unknown = relabel(found, NAMES, ignore_unknown=True)
    assert ([1, 1, 1], {"birds": 2, "fish": 1}) == (images.label.tolist(), unknown)


def test_no_known_label(tmp_path: Path) -> None:
    """A set of which the model knows nothing is an error in any case."""
    with pytest.raises(DataError, match="none of the labels of the set: 'birds'"):
        relabel(listed(tmp_path, birds=2), NAMES, ignore_unknown=True)


@pytest.fixture
def scored(tmp_path: Path) -> LabelledSet:
    """Three cats, all recognised, and a dog that is taken for a cat."""
    images, _ = relabel(listed(tmp_path, cats=3, dogs=1), NAMES, ignore_unknown=False)
    probabilities = np.array([[0.1, 0.8, 0.1]] * 3 + [[0.1, 0.5, 0.4]], np.float32)
    return LabelledSet(images=images, probabilities=probabilities)


def test_metrics(scored: LabelledSet) -> None:
    """The metrics are those of a run's split; a label without images has none, and the reason."""
    document = scored.metrics({}, seed=7)

    expected = split_document(scored.probabilities, scored.images.label, NAMES, 7, split="test")
    assert expected | {"loss": expected["log_loss"]} == document["test"]
    assert (None, 0) == (document["test"]["labels"]["ants"]["recall"], document["test"]["labels"]["ants"]["support"])
    assert "test" in document["test"]["unavailable"]["labels.ants.recall"]
    assert (None, None) == (document["validation"], document["threshold"])
    assert {"label": "cats", "validation": None, "test": 0.75} == document["majority"]
    assert {"one_answer", "majority", "recall_zero", "few_images"} == {
        warning["code"] for warning in document["warnings"]
    }
    json.dumps(document, allow_nan=False)


def test_files(scored: LabelledSet) -> None:
    """predictions.csv, confusion.csv and curves.json have the set as the split "test"."""
    rows = list(csv.DictReader(scored.predictions()))
    confusion = list(csv.reader(scored.confusion()))

    assert [("test", "cats", "cats")] * 3 + [("test", "dogs", "cats")] == [
        (row["split"], row["label"], row["prediction"]) for row in rows
    ]
    assert ["0.100000001", "0.5", "0.400000006"] == [rows[3][f"probability_{name}"] for name in NAMES]
    assert [["test", "cats", "0", "3", "0"], ["test", "dogs", "0", "1", "0"]] == confusion[2:]
    assert scored.curves()["validation"] is None
    assert {"cats", "dogs"} == set(scored.curves()["test"]["roc"])


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (None, None),
        ({"label": "dogs", "value": None}, None),
        ({"label": "dogs", "value": 0.3}, {"precision": 1.0, "recall": 1.0, "f1": 1.0}),
        ({"label": "dogs", "value": 0.9}, {"precision": None, "recall": 0.0, "f1": 0.0}),
    ],
)
def test_threshold_of_the_run(scored: LabelledSet, threshold: Any, expected: Any) -> None:
    """The threshold that the run chose is applied as it is; a run of three labels or of an older version has none."""
    found = scored.metrics({"threshold": threshold}, seed=7)["threshold"]

    assert expected == (found and found["test"])
