"""Scoring the held-out images, and the sample of them that the exported model is verified with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from classifiers import LABELS, examples, small_classifier
from listed_inputs import put, read_from

from job.config.settings import STAGES
from job.data import split
from job.evaluation.scores import Scores, held_out, score, score_stage_ends, verification_sample
from job.observability.progress import Listener, Phase, Progress
from job.training.state import TrainingState

if TYPE_CHECKING:
    from pathlib import Path


class Phases(Listener):
    """Remembers how far each phase is."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[int, int | None]] = {}

    def on_advance(self, phase: Phase) -> None:
        """Remember it."""
        self.seen[phase.name] = (phase.done, phase.total)


@pytest.mark.parametrize("test_rows", [[8, 9], []])
def test_score(test_rows: list[int]) -> None:
    """Each split has the probabilities of its rows, their accuracy and their loss; a split without images has none."""
    classifier, phases = small_classifier(), Phases()
    data = examples(classifier, "fine_tuning")
    rows_of = {"validation": np.array([10, 11, 3]), "test": np.array(test_rows, int)}

    scores = score(classifier, data, rows_of, TrainingState(predict_batch=2), Progress([phases]))

    assert ["validation", "test"][: 1 + bool(test_rows)] == list(scores)
    assert {f"evaluate {name}": (len(rows_of[name]), len(rows_of[name])) for name in scores} == phases.seen
    for name, scored in scores.items():
        rows = rows_of[name]
        expected = classifier.model(data.inputs(rows)).numpy()[:, 0]  # the probability of the second label
        np.testing.assert_allclose(np.stack([1 - expected, expected], axis=1), scored.probabilities, atol=1e-5)
        truth = LABELS[rows]
        loss = -np.log(np.where(truth == 1, expected, 1 - expected)).mean()
        assert (pytest.approx(loss, rel=1e-4), np.mean((expected > 0.5) == truth)) == (scored.loss, scored.accuracy)


@pytest.mark.parametrize("published", ["feature_extraction", "fine_tuning", None])
def test_score_stage_ends(published: str | None) -> None:
    """Each stage's model has its own probabilities, the published one is not scored again, and its weights stay."""
    classifier, phases, state, progress = small_classifier(), Phases(), TrainingState(), Progress()
    data, rows_of = (
        examples(classifier, "fine_tuning"),
        {"validation": np.array([10, 11, 3]), "test": np.array([], int)},
    )
    ends, expected = {}, {}
    for number, stage in enumerate((*STAGES, None)):
        classifier.output.bias.assign([float(number)])
        weights = classifier.state()
        expected[stage] = score(classifier, data, rows_of, state, progress)["validation"]
        if stage:
            ends[stage] = weights
        if stage == published:
            kept = weights
    classifier.load_state(kept)
    progress.subscribe(phases)

    found = score_stage_ends(classifier, ends, expected[published], data, state, progress)

    assert {f"evaluate {stage}" for stage in ends if stage != published} == set(phases.seen)
    for stage in STAGES:
        assert expected[stage].probabilities.tobytes() == found[stage].tobytes()
    assert all(np.array_equal(kept[path], value) for path, value in classifier.state().items())


def test_held_out_images_are_read_one_by_one(tmp_path: Path) -> None:
    """At most so many images of both splits, each read when it is asked for, with its own probabilities."""
    listed, _ = read_from(put(tmp_path, [f"{'ab'[number % 2]}/{number}.jpg" for number in range(6)]))
    random = np.random.default_rng(0).dirichlet((1, 1), 6).astype(np.float32)
    scores = {
        name: Scores(split=name, rows=rows, probabilities=random[rows], loss=0.5, accuracy=0.5)
        for name, rows in (("validation", np.arange(4)), ("test", np.arange(4, 6)))
    }
    read: list[int] = []
    images = SimpleNamespace(manifest=listed, encoded=lambda row: read.append(row) or bytes([row]))

    encoded, probabilities = verification_sample(scores, images, 5)

    assert [] == read
    first = next(encoded)
    assert [first[0]] == read
    assert 4 == len(list(encoded))
    assert 5 == len(set(read))
    assert np.array_equal(random[read], probabilities)


def test_held_out_images_of_a_split(tmp_path: Path) -> None:
    """They come in hash order, each with its content, label and prediction, and are read one by one."""
    listed, _ = read_from(put(tmp_path, [f"{'ab'[number % 2]}/{number}.jpg" for number in range(6)]))
    rows = np.array([5, 1, 2])
    answers = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], np.float32)
    scores = Scores(split="validation", rows=rows, probabilities=answers, loss=0.5, accuracy=0.5)

    found = held_out(scores, SimpleNamespace(manifest=listed, encoded=lambda row: bytes([row])))

    read = [found.encoded(position)[0] for position in range(3)]
    assert read == rows[np.argsort(split.hashes(listed)[rows])].tolist()
    assert listed.labels == found.labels
    assert listed.content_keys()[read].tolist() == found.content.tolist()
    assert listed.label[read].tolist() == found.label.tolist()
    assert [{5: 0, 1: 1, 2: 1}[row] for row in read] == found.prediction.tolist()


def test_verified_images_are_chosen_by_their_hash(tmp_path: Path) -> None:
    """Which images are verified depends on their bytes, not on their names: they are a sample of all classes."""
    listed, _ = read_from(put(tmp_path, [f"{'ab'[number % 2]}/{number}.jpg" for number in range(6)]))
    answers = np.full((6, 2), 0.5, np.float32)
    scores = {"validation": Scores(split="validation", rows=np.arange(6), probabilities=answers, loss=1, accuracy=1)}
    images = SimpleNamespace(manifest=listed, encoded=lambda row: row)

    rows = list(verification_sample(scores, images, 5)[0])

    hashes = split.hashes(listed)
    assert sorted(range(6), key=hashes.__getitem__)[:5] == rows
