"""The data after the pass: checked, split, and described for the run's documents."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from listed_inputs import ANIMALS, put, read_from
from runs import Facts as FactsOf
from runs import Recorder

from job.config.settings import InputSettings
from job.data.prepare import Prepared, prepare
from job.data.quarantine import Quarantined
from job.errors import DataError
from job.observability import log
from job.observability.progress import Event, Listener, LogListener, Progress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

UNREADABLE = 3
"""The row of the image that the pass could not read."""


def prepared_from(
    folder: Path, recorder: Listener, *, max_bad_fraction: float = 0.1, damaged: Sequence[int] = ()
) -> Prepared:
    """Prepare 40 images, of which one cannot be read, and one file that the listing has quarantined."""
    listed, _ = read_from(put(folder, ANIMALS))
    bad = Quarantined(listed.uri(UNREADABLE), "cats", 1, "corrupt", "cut off")
    images = SimpleNamespace(
        usable=np.arange(len(listed)) != UNREADABLE, quarantined=[bad], damaged=np.isin(range(len(listed)), damaged)
    )
    empty = Quarantined(f"{folder}/cats/empty.jpg", "cats", 0, "empty", "the file has no bytes")
    settings = InputSettings(
        uri=str(folder), validation_fraction=0.2, test_fraction=0.2, max_bad_fraction=max_bad_fraction
    )
    return prepare(listed, [empty], images, settings, Progress([recorder]), hashes=None)


def test_rows_are_those_of_the_listing(tmp_path: Path) -> None:
    """Every usable image is in one split, by its row among all that were listed."""
    prepared = prepared_from(tmp_path, Recorder())

    assert {"train", "validation", "test"} == set(prepared.rows_of)
    assert sorted({*range(40)} - {UNREADABLE}) == sorted(np.concatenate([*prepared.rows_of.values()]).tolist())
    assert all(len(rows) for rows in prepared.rows_of.values())


def test_quarantined_images_are_collected(tmp_path: Path) -> None:
    """What the listing and the pass found unusable is one list, and one warning."""
    recorder = Recorder()

    prepared = prepared_from(tmp_path, recorder)

    assert ["empty", "corrupt"] == [image.reason for image in prepared.quarantined]
    assert ["images.quarantined", "split.assigned"] == recorder.names


def test_damaged_images_are_named(tmp_path: Path) -> None:
    """What the pass found damaged, but usable, is one warning with its number and the first names."""
    facts = FactsOf("images.damaged")

    prepared = prepared_from(tmp_path, facts, damaged=range(10, 19))

    [found] = facts.seen
    names = [prepared.usable.uri(row - 1) for row in range(10, 15)]  # one before them cannot be used
    assert (9, 40, names) == (found["count"], found["of"], found["first"])


def test_too_many_are_unusable(tmp_path: Path) -> None:
    """Images found unusable by the listing and by the pass count together."""
    with pytest.raises(DataError, match="2 of 41 images"):
        prepared_from(tmp_path, Recorder(), max_bad_fraction=0.04)


class Facts(Recorder):
    """Remembers the facts of the last event."""

    def on_event(self, event: Event) -> None:
        """Remember them."""
        super().on_event(event)
        self.facts = event.facts


def test_images_by_class_and_split(tmp_path: Path) -> None:
    """One event names the classes, each with its images in train, validation and test."""
    recorder = Facts()

    prepared = prepared_from(tmp_path, recorder)

    documents = {name: list(rows) for name, rows in prepared.documents()}
    pairs = Counter((row["label"], row["split"]) for row in documents["data/split.jsonl"])
    splits = ("train", "validation", "test")
    expected = {label: [pairs[label, name] for name in splits] for label in ("cats", "dogs")}
    assert "split.assigned" == recorder.names[-1]
    assert expected == recorder.facts["classes"]
    assert {"cats": expected["cats"]} == recorder.facts["smallest"]  # one of them is unreadable
    assert {"dogs": expected["dogs"]} == recorder.facts["largest"]
    assert 0 == recorder.facts["more_classes"]
    assert [len(prepared.rows_of[name]) for name in splits] == [recorder.facts[name] for name in splits]


def test_many_classes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With 700 classes, most of them without a validation image, the log names 20, and every line is short JSON."""
    names = [f"train/class-{n:03}-{'x' * 200}/{picture}.jpg" for n in range(700) for picture in range(2)]
    listed, _ = read_from(put(tmp_path, [*names, names[0].replace("train", "validation").replace("0.jpg", "2.jpg")]))
    images = SimpleNamespace(usable=np.ones(len(listed), bool), quarantined=[], damaged=np.zeros(len(listed), bool))
    recorder = Facts()

    log.configure(console=False)
    prepare(listed, [], images, InputSettings(uri=str(tmp_path)), Progress([recorder, LogListener()]), hashes=None)

    absent, assigned = map(json.loads, lines := capfd.readouterr().err.splitlines())
    assert max(len(line.encode()) for line in lines) < log.LINE_BYTES
    assert ("split.class_absent", 699, 20) == (absent["message"], absent["count"], len(absent["classes"]))
    assert ("split.assigned", 680, 20) == (assigned["message"], assigned["more_classes"], len(assigned["classes"]))
    assert {listed.labels[0]: [2, 1, 0]} == recorder.facts["largest"]
    assert {listed.labels[1]: [2, 0, 0]} == recorder.facts["smallest"]
    assert list(listed.labels[:20]) == list(recorder.facts["classes"])


def test_documents(tmp_path: Path) -> None:
    """The documents have a row for each usable image, for its split, and for each quarantined one."""
    documents = {name: list(rows) for name, rows in prepared_from(tmp_path, Recorder()).documents()}

    expected = {
        "data/manifest.jsonl": 39,
        "data/split.jsonl": 39,
        "data/duplicates.jsonl": 0,
        "data/quarantine.jsonl": 2,
    }
    assert expected == {name: len(rows) for name, rows in documents.items()}
    assert {"uri", "label", "size", "reason", "detail"} == set(documents["data/quarantine.jsonl"][0])


def test_leaking_duplicates(tmp_path: Path) -> None:
    """Images on both sides are reported, and refused where they are more than the settings allow."""
    names = [f"{side}/{label}/{n}.jpg" for side in ("train", "validation") for label in ("a", "b") for n in range(5)]
    put(tmp_path, names)
    for n in range(3):
        put(tmp_path, [f"{side}/a/copy{n}.jpg" for side in ("train", "validation")], b"copy %d" % n)
    listed, _ = read_from(tmp_path)
    images = SimpleNamespace(usable=np.ones(len(listed), bool), quarantined=[], damaged=np.zeros(len(listed), bool))
    hashes = np.arange(len(listed)).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    hashes[listed.names.index("validation/b/0.jpg")] = hashes[listed.names.index("train/b/4.jpg")]
    recorder = Facts()

    def prepared(**settings: object) -> Prepared:
        return prepare(
            listed, [], images, InputSettings(uri=str(tmp_path), **settings), Progress([recorder]), hashes=hashes
        )

    found = prepared(max_leaking_duplicates=4)

    rows = {(row["a"].rpartition("/")[2], row["kind"]) for row in found.duplicates.rows(found.usable, found.splits)}
    assert {("copy0.jpg", "exact"), ("copy1.jpg", "exact"), ("copy2.jpg", "exact"), ("4.jpg", "near")} == rows
    assert "duplicates.found" in recorder.names
    with pytest.raises(DataError, match=r"4 of 13 held-out images .*allows 3"):
        prepared(max_leaking_duplicates=3)
    assert 0 == len(prepared(near_duplicate_distance=0, max_leaking_duplicates=3).duplicates.near)
