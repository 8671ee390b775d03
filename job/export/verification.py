"""An exported model scores images in a separate process; the verification that it reproduces the run's predictions."""

from __future__ import annotations

import io
import os
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from job import errors
from job.data.dataset import RANGE
from job.export.model_process import ModelProcess

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray


TOLERANCE = 1e-3
"""Maximum difference between a probability of the exported model on the CPU and the run's own; both are float32."""
KERAS_IMAGES = 32
"""Images that are scored with ``model.keras``, too: one at a time, as their sizes differ."""


class Answers(NamedTuple):
    """What an exported model answers.

    Attributes:
        saved_model: the SavedModel's probabilities for all images, float32 [n, labels].
        keras: those of ``model.keras`` for the first images, float32 [m, labels], or [m, 1] for two labels.
    """

    saved_model: NDArray[Any]
    keras: NDArray[Any]


TIME_LIMIT = 600
"""Seconds for loading the exported model, and for scoring each batch. A hang ends before `device.stall_minutes`."""


class Scorer(ModelProcess):
    """A child process that scores images with an exported model on the CPU. Use as a context manager.

    Args:
        time_limit: seconds for loading the model, and for each batch.
        keras_images: number of images that are scored with ``model.keras``, too; 0: the file may be missing.
        work: what the process does, for messages.
        model: with which model, for messages.
    """

    def __init__(
        self,
        time_limit: int = TIME_LIMIT,
        *,
        keras_images: int = KERAS_IMAGES,
        work: str = "verifies",
        model: str = "the exported model",
    ) -> None:
        super().__init__("job.export.scorer", RANGE, keras_images, time_limit)
        self._time_limit = time_limit
        self._process, self._model = f"the process that {work} {model}", model

    def score(self, folder: Path, encoded: Iterable[bytes]) -> Answers:
        """Return what the exported model in `folder` answers for encoded images, at least one. Can be called once.

        Raises:
            errors.InvariantError: the model cannot be loaded and run.
            errors.UnavailableError: the process was killed, ran out of memory, or exceeded the time limit.
        """
        output = self._exchange(str(folder), encoded)
        if self._child.returncode:
            raise self._failure(self._child.returncode)
        return Answers(**np.load(io.BytesIO(output), allow_pickle=False))

    def _failure(self, code: int) -> errors.FinetuneError:
        """Return the error for an exit code; a negative one is the signal that killed the process."""
        if code == -signal.SIGALRM:  # from its own time limit
            return errors.UnavailableError(
                f"{self._process} made no progress for {self._time_limit} seconds",
                remedy="Start the job again: it resumes before the export. If this recurs, give it more CPUs.",
            )
        if code < 0 or code == os.EX_OSERR:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else "ran out of memory"
            return errors.UnavailableError(
                f"{self._process} {how}",
                remedy="Give the job more memory (resources.limits.memory): during the export it needs that of a "
                "second TensorFlow process. Then start it again: it resumes before the export.",
            )
        return errors.InvariantError(
            f"{self._model} cannot be loaded and run in a fresh process (exit {code}): {self._stderr()[-2000:]}",
            remedy=errors.REPORT_BUG,
        )


def score_latest(folder: Path, encoded: Iterable[bytes]) -> NDArray[Any]:
    """Return the probabilities, float32 [n, labels], of the latest run's SavedModel for encoded images.

    Args:
        folder: has ``saved_model/``.
        encoded: the bytes of the images as stored, at least one.

    Raises:
        errors.InvariantError, errors.UnavailableError: see `Scorer.score`.
    """
    try:
        with Scorer(keras_images=0, work="scores", model="the model of latest.json") as scorer:
            return scorer.score(folder, encoded).saved_model
    except errors.UnavailableError as error:
        remedy = f"{error.remedy} Without gate.no_worse_than_latest that model is not scored."
        raise errors.UnavailableError(error.message, remedy=remedy) from error


def verify(scorer: Scorer, folder: Path, encoded: Iterable[bytes], probabilities: NDArray[Any]) -> dict[str, Any]:
    """Compare the exported model's probabilities for encoded images with the run's own.

    Args:
        scorer: scores the images.
        folder: the folder that `saved_model.save` wrote.
        encoded: the bytes of the images as stored.
        probabilities: the run's own, float32 [n, labels].

    Returns:
        The fields of metrics.json about the verification.

    Raises:
        errors.InvariantError: the exported model cannot be loaded, or its probabilities differ.
        errors.UnavailableError: the scorer was killed, ran out of memory, or exceeded its time limit.
    """
    answers = scorer.score(folder, encoded)
    by_keras = answers.keras
    if by_keras.shape[1] == 1:  # the probability of the second label
        by_keras = np.concatenate([1 - by_keras, by_keras], axis=1)
    difference = _compare("SavedModel", answers.saved_model, probabilities)
    keras_difference = _compare("model.keras", by_keras, probabilities[: len(by_keras)])
    return {
        "images": len(probabilities),
        "max_difference": difference,
        "keras_images": len(by_keras),
        "keras_max_difference": keras_difference,
        "tolerance": TOLERANCE,
    }


def _compare(form: str, answers: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """Return the largest difference between an exported model's probabilities and the run's own, [n, labels].

    Raises:
        errors.InvariantError: it exceeds the tolerance, or another label is the most probable one.
    """
    difference = float(np.abs(answers - probabilities).max())
    # The top two labels may swap if their probabilities differ by less than the tolerance.
    ranked = np.sort(probabilities, axis=1)
    is_clear = ranked[:, -1] - ranked[:, -2] > TOLERANCE
    flipped = int(np.count_nonzero(is_clear & (answers.argmax(axis=1) != probabilities.argmax(axis=1))))
    if difference > TOLERANCE or flipped or not np.isfinite(answers).all():
        raise errors.InvariantError(
            f"the exported {form} answers differently: probabilities differ by up to {difference:g}, expected at most "
            f"{TOLERANCE:g}; {flipped} of {len(probabilities)} images get another label",
            remedy=errors.REPORT_BUG,
        )
    return difference
