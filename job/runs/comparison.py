"""The comparison of a run's model with the one that ``latest.json`` names, for ``gate.no_worse_than_latest``.

Both models are compared on validation images that the latest one did not train on. Images are matched by their content:
a picture that was renamed or copied to another bucket is still one that it has seen, and new bytes under an old name
are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from job import errors
from job.evaluation.gates import Comparison, HeldOut, paired_difference
from job.runs.latest import PublishedFiles, UnusableRunError, read_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from job.observability.progress import Progress
    from job.runs.run import Run

MIN_IMAGES = 30
"""On fewer images the accuracies are not compared: one image would be more than 3 %."""
MAX_IMAGES = 10_000
"""Images that are scored, at most: on a few CPU cores they take minutes, and the interval is below 1 %."""

ScoreImages: TypeAlias = "Callable[[Path, Iterable[bytes]], NDArray[Any]]"
"""Returns the probabilities, float32 [n, labels], of the SavedModel in a folder for encoded images.

Raises errors.InvariantError if the model cannot be loaded and run, errors.UnavailableError if the process was killed.
"""


def compare(
    run: Run, held_out: HeldOut, score: ScoreImages, *, scratch: Path, seed: int, progress: Progress
) -> Comparison:
    """Compare a run's model with the latest one. If that is not possible, log a warning with the reason.

    Args:
        run: the run.
        held_out: its validation images.
        score: scores the latest model.
        scratch: a local folder.
        seed: of the bootstrap interval.
        progress: receives the events.

    Raises:
        errors.UnavailableError: the store is unreachable, the scratch folder full, or the scoring process was killed.
            That says nothing about the latest model, so the check is not skipped: the next start makes it.
    """
    latest, generation = read_latest(run.output)
    if not generation:
        return Comparison(generation=0, reason="there is no latest.json to compare with")
    run_id = latest.run_id if latest else None
    try:
        numbers = _measure(_other_run(run, run_id), held_out, score, scratch, seed, progress)
    except UnusableRunError as error:
        comparison = Comparison(generation=generation, run_id=run_id, reason=str(error))
        progress.event("gate.not_compared", severity="warning", latest=run_id, reason=comparison.reason)
        return comparison
    progress.event("gate.compared", latest=run_id, **numbers)
    return Comparison(generation=generation, run_id=run_id, **numbers)


def _other_run(run: Run, run_id: str | None) -> PublishedFiles:
    """Return the published run that latest.json names.

    Raises:
        UnusableRunError: it names none, this run itself, or one that is deleted or damaged.
    """
    if run_id is None:
        raise UnusableRunError("latest.json is unreadable")
    if run_id == run.id:
        raise UnusableRunError("latest.json names this run itself")
    return PublishedFiles(run.output, run_id)


def _measure(
    latest: PublishedFiles, held_out: HeldOut, score: ScoreImages, scratch: Path, seed: int, progress: Progress
) -> dict[str, Any]:
    """Return the numbers of the comparison.

    Raises:
        UnusableRunError: the models cannot be compared.
    """
    if (labels := latest.labels()) != held_out.labels:
        raise UnusableRunError(f"its labels differ: {_difference(labels, held_out.labels)}")
    unseen = np.flatnonzero(~np.isin(held_out.content, latest.training_content()))[:MAX_IMAGES]
    if len(unseen) < MIN_IMAGES:
        raise UnusableRunError(
            f"{len(unseen)} of {len(held_out.content):,} validation images are no training images of the latest run, "
            f"and {MIN_IMAGES} are needed"
        )
    with (
        progress.phase("compare", len(unseen), "images") as phase,
        latest.downloaded_model(scratch) as folder,
    ):

        def images() -> Iterator[bytes]:
            for position in unseen.tolist():
                yield held_out.encoded(position)
                phase.advance()

        try:
            probabilities = score(folder, images())
        except errors.InvariantError as error:
            raise UnusableRunError(_shortened(error.message)) from error
    if probabilities.shape != (len(unseen), len(labels)) or not np.isfinite(probabilities).all():
        raise UnusableRunError(
            f"its model answers with {list(probabilities.shape)} probabilities, not all of them finite, "
            f"expected [{len(unseen)}, {len(labels)}]"
        )
    label = held_out.label[unseen]
    return paired_difference(held_out.prediction[unseen] == label, probabilities.argmax(axis=1) == label, seed)


def _shortened(message: str) -> str:
    """Return the first and the last line of a message that ends in a traceback."""
    lines = [line.strip()[:300] for line in message.splitlines()]
    return " … ".join(dict.fromkeys([lines[0], lines[-1]]))


def _difference(labels: tuple[str, ...], own: tuple[str, ...]) -> str:
    """Return what differs between the latest run's labels and this run's own, with a few names."""
    missing, new = sorted({*labels} - {*own})[:3], sorted({*own} - {*labels})[:3]
    return f"only the latest run has {missing}, only this one {new}"
