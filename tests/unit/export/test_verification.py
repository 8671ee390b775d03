"""An exported model must answer as the run's own model does, within the tolerance."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from job import errors
from job.export.verification import Answers, Scorer, verify

if TYPE_CHECKING:
    from pathlib import Path

OWN = np.array([[0.75, 0.25], [0.2503, 0.7497], [0.5002, 0.4998]], np.float32)
"""The run's probabilities: two clear answers, and one that is nearly a tie."""


def compare(tmp_path: Path, served: np.ndarray, by_keras: np.ndarray = OWN) -> dict[str, object]:
    """Compare with an exported model that answers with these probabilities."""
    scorer = SimpleNamespace(score=lambda _folder, _encoded: Answers(served, by_keras))
    return verify(scorer, tmp_path, [b""] * len(OWN), OWN)


def test_within_the_tolerance(tmp_path: Path) -> None:
    """Probabilities may differ by 0.001, which may flip a near tie; metrics.json has the largest differences."""
    report = compare(tmp_path, OWN + np.float32([-0.0009, 0.0009]), OWN[:2] + np.float32([0.0005, -0.0005]))

    assert {
        "images": 3,
        "max_difference": pytest.approx(0.0009, rel=1e-3),
        "keras_images": 2,
        "keras_max_difference": pytest.approx(0.0005, rel=1e-3),
        "tolerance": 1e-3,
    } == report


def test_one_column_is_the_second_label(tmp_path: Path) -> None:
    """With two labels, model.keras answers with one column: the probability of the second label."""
    assert compare(tmp_path, OWN, OWN[:, 1:])["keras_max_difference"] < 1e-6
    with pytest.raises(errors.InvariantError, match=r"exported model.keras .* 2 of 3 images get another"):
        compare(tmp_path, OWN, OWN[:, :1])


@pytest.mark.parametrize("moved", [[0.0011, -0.0011], [0, 0.0011], [np.nan, np.nan], [np.nan, 0], [0, np.inf]])
def test_other_answers(tmp_path: Path, moved: list[float]) -> None:
    """A larger difference ends the run with exit 9, as do NaN and infinity."""
    others = OWN + np.float32([[0, 0], [0, 0], moved])
    for form, answers in (("SavedModel", (others, OWN)), ("model.keras", (OWN, others))):
        with pytest.raises(errors.InvariantError, match=rf"exported {form} .* expected at most 0.001") as caught:
            compare(tmp_path, *answers)
        assert 9 == caught.value.exit_code


def test_killed_scorer(tmp_path: Path) -> None:
    """A scorer that a signal kills, as the kernel does for memory, breaks no invariant: exit 20 names the signal."""
    with Scorer() as scorer:
        scorer._child.kill()
        with pytest.raises(errors.UnavailableError, match=r"was killed by SIGKILL$") as caught:
            scorer.score(tmp_path, [b"image"])

    assert 20 == caught.value.exit_code
    assert "more memory" in caught.value.remedy


@pytest.mark.slow
def test_hanging_scorer(tmp_path: Path) -> None:
    """A model whose file never arrives ends the scorer after its own time limit, with exit 20."""
    (tmp_path / "saved_model").mkdir()
    os.mkfifo(tmp_path / "saved_model/saved_model.pb")  # opening it blocks until another process writes to it

    with Scorer(time_limit=1) as scorer, pytest.raises(errors.UnavailableError, match="no progress for 1 seconds"):
        scorer.score(tmp_path, [b"image"])


def test_answers_that_are_all_nan(tmp_path: Path) -> None:
    """NaN in every answer ends the run, although no comparison with NaN is true and no label differs."""
    own = np.float32([[0.75, 0.25], [0.9, 0.1]])
    with pytest.raises(errors.InvariantError, match="differ by up to nan"):
        verify(
            SimpleNamespace(score=lambda _folder, _encoded: Answers(np.full((2, 2), np.nan, np.float32), own)),
            tmp_path,
            [b""] * 2,
            own,
        )
