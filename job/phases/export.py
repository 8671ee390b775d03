"""The phases before publication: export, conversion to other formats, and the quality gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from job.evaluation import gates
from job.evaluation.gates import Gate
from job.runs import comparison, provenance
from job.runs.statement import Execution

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from job.config.settings import Settings
    from job.data.dataset import Dataset
    from job.data.prepare import Prepared
    from job.evaluation.scores import Scores
    from job.export.verification import Scorer
    from job.model.classifier import Classifier
    from job.model.weights import Provenance as Weights
    from job.phases.context import RunContext
    from job.runs.documents import Document
    from job.runtime import device


def export(
    context: RunContext,
    classifier: Classifier,
    scorer: Scorer,
    scores: dict[str, Scores],
    prepared: Prepared,
    images: Dataset,
    *,
    scratch: Path,
) -> dict[str, object]:
    """Export the model, verify that the export reproduces the run's predictions, and write it to the run.

    Args:
        context: of the run.
        classifier: with the weights to publish.
        scorer: the process that verifies the export.
        scores: of the held-out images, by split.
        prepared: the split.
        images: the data.
        scratch: a local folder for the exported model.

    Returns:
        The fields of metrics.json about the export.
    """
    from job.evaluation.scores import verification_sample
    from job.export import saved_model
    from job.export.verification import verify

    exported = scratch / "model"
    with context.part("export"):
        saved_model.save(classifier, exported, max_pixels=context.loaded.settings.input.max_pixels)
    with context.part("verify"):
        sample = verification_sample(scores, images, context.loaded.settings.export.verify_images)
        verification = verify(scorer, exported, *sample)
    context.progress.event("model.verified", **verification)
    exports = convert(context, scores, prepared, images, exported)
    with context.part("upload"):
        context.run.write_folder("model", exported)
    return {"verification": verification, "exports": exports}


def convert(
    context: RunContext, scores: dict[str, Scores], prepared: Prepared, images: Dataset, exported: Path
) -> dict[str, object]:
    """Convert the exported model to the formats of `export.formats`. A format that fails is left out.

    Args:
        context: of the run.
        scores: of the held-out images, by split.
        prepared: the split.
        images: the data.
        exported: the folder of the exported model, which receives the files.

    Returns:
        The fields of metrics.json about each format.
    """
    from job.evaluation.scores import verification_sample
    from job.export import conversion

    settings, progress = context.loaded.settings, context.progress
    documents: dict[str, object] = {}
    for name in settings.export.formats:
        sample = verification_sample(scores, images, settings.export.verify_images)
        calibration = conversion.calibration_rows(name, images, prepared.rows_of["train"])
        with (
            context.timing.part("convert"),
            progress.phase(f"convert {name}", len(calibration) + len(sample[1]), "images") as phase,
            conversion.Converter(name, conversion.time_limit(settings.device.stall_minutes)) as converter,
        ):
            converted = conversion.convert(
                converter, name, exported, calibration=calibration, images=images, sample=sample, advance=phase.advance
            )
        documents[name] = facts = converted.document()
        if converted.passed:
            progress.event("model.converted", format=name, **facts)
        else:
            progress.event("export.left_out", severity="warning", format=name, reason=converted.reason)
    return documents


def gate_judge(
    context: RunContext, metrics: Mapping[str, Any], scores: dict[str, Scores], images: Dataset, *, scratch: Path
) -> Callable[[], Gate]:
    """Return the function that judges the quality gate. Each call compares the model with the latest one at that time.

    Args:
        context: of the run.
        metrics: of the model to publish, as in metrics.json.
        scores: of the held-out images, by split.
        images: the data.
        scratch: a local folder for the latest model.
    """
    from job.evaluation.scores import held_out
    from job.export.verification import score_latest

    settings, measured = context.loaded.settings, gates.measured_from(metrics["validation"])
    sample = held_out(scores["validation"], images)

    def judge() -> Gate:
        if settings.gate.no_worse_than_latest is None:
            return Gate.judge(measured, settings.gate)
        with context.timing.part("compare"):
            latest = comparison.compare(
                context.run, sample, score_latest, scratch=scratch, seed=settings.run.seed, progress=context.progress
            )
        return Gate.judge(measured, settings.gate, latest)

    return judge


def made_by(settings: Settings, machine: device.Device, weights: Weights) -> Document:
    """Return what makes the model, besides its settings and data, as manifest.json has it."""
    weights_document = weights.document() | {"backbone": settings.model.backbone}
    return provenance.document(settings.run) | {"device": vars(machine), "weights": weights_document}


def execution(context: RunContext, made_by: Document) -> Execution:
    """Return how the run was executed, for its provenance."""
    return Execution(
        provenance=made_by,
        seconds=context.timing.document(),
        gpus=context.job.gpus,
        starts=context.checkpoints.starts,
        attempts=context.job.attempts(),
    )
