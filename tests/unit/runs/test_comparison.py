"""The comparison with the latest run: which images count, and what leaves the check open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import latest_runs
import numpy as np
import pytest
from structlog.testing import capture_logs

from job import errors, storage
from job.data.manifest import content_keys
from job.evaluation.gates import Comparison, HeldOut
from job.observability.progress import LogListener, Progress
from job.runs import comparison
from job.runs.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from job.storage import Store

IMAGES = [(100 + n, n) for n in range(40)]
"""Size and crc32c of the validation images."""


@pytest.fixture
def output(tmp_path: Path) -> Store:
    """Return an empty output."""
    return storage.open_store(str(tmp_path / "out"))


class Model:
    """A latest model with fixed answers.

    Args:
        prediction: of each of the images of `IMAGES`, for all that it scores.

    Attributes:
        scored: positions of the images that it has scored.
    """

    def __init__(self, prediction: np.ndarray | None = None) -> None:
        self.prediction = np.zeros(len(IMAGES), int) if prediction is None else prediction
        self.scored: list[int] = []

    def __call__(self, folder: Path, encoded: Iterable[bytes]) -> np.ndarray:
        """Return the probabilities."""
        assert b"graph" == (folder / "saved_model/saved_model.pb").read_bytes()
        self.scored = [int(data) for data in encoded]
        return np.eye(2, dtype=np.float32)[self.prediction[self.scored]]


def compare(
    output: Store, tmp_path: Path, score: Callable[..., Any], *, labels: tuple[str, ...] = ("a", "b")
) -> tuple[Comparison, list[dict[str, Any]]]:
    """Compare a run that is always right with the latest one; return that and what was logged."""
    label = np.arange(len(IMAGES)) % 2
    content = content_keys(*np.array(IMAGES).T)
    held_out = HeldOut(labels, content, label, label, lambda position: b"%d" % position)
    progress = Progress([LogListener()])
    with capture_logs() as lines:
        found = comparison.compare(Run(output, "new"), held_out, score, scratch=tmp_path, seed=7, progress=progress)
    return found, [line for line in lines if line["event"].startswith("gate.")]


def reason_of(output: Store, tmp_path: Path, score: Callable[..., Any] | None = None, **options: Any) -> str:
    """Return why a comparison is not made; it is a warning with the run's name."""
    found, [line] = compare(output, tmp_path, score or Model(), **options)
    assert ("gate.not_compared", "warning", found.reason) == (line["event"], line["log_level"], line["reason"])
    assert (line["latest"], output.stat("latest.json").generation) == (found.run_id, found.generation)
    assert found.images is None
    return found.reason


def test_compared(output: Store, tmp_path: Path) -> None:
    """Both accuracies are of the same images; the result names the run and the generation of latest.json."""
    latest_runs.publish(output, trained_on=[(1, 1)])

    found, [line] = compare(output, tmp_path, Model())

    assert ("old", output.stat("latest.json").generation, 40) == (found.run_id, found.generation, found.images)
    assert (1.0, 0.5, 0.5) == (found.accuracy, found.latest_accuracy, found.difference)
    assert found.interval[0] < 0.5 < found.interval[1]
    assert ("gate.compared", "old", 0.5) == (line["event"], line["latest"], line["latest_accuracy"])
    assert not list(tmp_path.glob("latest-*"))


def test_images_that_the_latest_run_trained_on(output: Store, tmp_path: Path) -> None:
    """Images are matched by content, under any name; what the latest run held out may be compared."""
    latest_runs.publish(output, trained_on=[*IMAGES[:5], (105, 99), (99, 6)], held_out=IMAGES[5:10])

    model = Model()
    found, _ = compare(output, tmp_path, model)

    assert list(range(5, 40)) == model.scored
    assert 35 == found.images


@pytest.mark.parametrize(("seen", "is_compared"), [(10, True), (11, False), (40, False)])
def test_too_few_images(output: Store, tmp_path: Path, seen: int, is_compared: bool) -> None:
    """Fewer than 30 images that the latest run did not train on are too few."""
    latest_runs.publish(output, trained_on=IMAGES[:seen])
    if is_compared:
        assert 30 == compare(output, tmp_path, Model())[0].images
    else:
        assert f"{40 - seen} of 40 validation images" in reason_of(output, tmp_path)


def test_at_most_so_many_images(output: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many images the first ones are scored, in the order given."""
    monkeypatch.setattr(comparison, "MAX_IMAGES", 32)
    latest_runs.publish(output, trained_on=IMAGES[:2])

    model = Model()
    assert 32 == compare(output, tmp_path, model)[0].images
    assert list(range(2, 34)) == model.scored


def test_no_latest_run(output: Store, tmp_path: Path) -> None:
    """Without latest.json there is nothing to compare with, and nothing to warn of."""
    found, lines = compare(output, tmp_path, Model())

    assert Comparison(generation=0, reason="there is no latest.json to compare with") == found
    assert [] == lines


def test_other_labels(output: Store, tmp_path: Path) -> None:
    """Models of other labels are not compared; the reason names some of them."""
    latest_runs.publish(output, labels=("a", "c"))

    assert "its labels differ: only the latest run has ['c'], only this one ['b']" == reason_of(output, tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "latest.json is unreadable"),
        (b'{"run_id": "gone", "published_at": ""}', "the run gone is deleted"),
        (b'{"run_id": "../jobs", "published_at": ""}', "is not the name of a run"),
        (b'{"run_id": "new", "published_at": ""}', "names this run itself"),
    ],
)
def test_latest_that_is_no_run(output: Store, tmp_path: Path, content: bytes, reason: str) -> None:
    """A latest.json that names no other published run leaves the check open."""
    output.write("latest.json", content)

    assert reason in reason_of(output, tmp_path)


@pytest.mark.parametrize("name", ["model/labels.txt", "data/split.jsonl", *latest_runs.MODEL])
def test_damaged_latest_run(output: Store, tmp_path: Path, name: str) -> None:
    """A file of the latest run that differs from its manifest.json leaves the check open."""
    latest_runs.publish(output)
    output.write(f"runs/old/{name}", b"damaged")

    assert name in reason_of(output, tmp_path)


def test_model_that_cannot_be_loaded(output: Store, tmp_path: Path) -> None:
    """A latest model that cannot be loaded, or answers with nonsense, leaves the check open."""

    def fail(_folder: Path, _encoded: object) -> None:
        raise errors.InvariantError("it cannot be loaded: Traceback\n  File\nOSError: why", remedy="")

    latest_runs.publish(output)

    assert "it cannot be loaded: Traceback … OSError: why" == reason_of(output, tmp_path, fail)
    for answers in (np.ones((40, 3)), np.full((40, 2), np.nan), np.ones((39, 2))):
        assert "probabilities" in reason_of(output, tmp_path, lambda _folder, _encoded, answers=answers: answers)


def test_scoring_process_that_is_killed(output: Store, tmp_path: Path) -> None:
    """That says nothing about the latest model: the run ends with exit 20, and its next start compares again."""

    def fail(_folder: Path, _encoded: object) -> None:
        raise errors.UnavailableError("killed", remedy="")

    latest_runs.publish(output)

    with pytest.raises(errors.UnavailableError, match="killed"):
        compare(output, tmp_path, fail)
    assert not list(tmp_path.glob("latest-*"))
