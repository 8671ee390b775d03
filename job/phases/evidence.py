"""The phases that say what came out: metrics, suspected label errors, gallery, model card and report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from job import __version__
from job.phases.context import RunContext, optional
from job.runs.documents import encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from job.data.dataset import Dataset
    from job.data.prepare import Prepared
    from job.evaluation.label_errors import Suspect
    from job.evaluation.scores import Scores
    from job.model.classifier import Classifier
    from job.model.weights import Provenance as Weights
    from job.phases.training import Trained
    from job.runs.documents import Document
    from job.training.examples import Examples
    from job.training.state import TrainingState


def evaluate(
    context: RunContext,
    classifier: Classifier,
    examples: Examples,
    prepared: Prepared,
    images: Dataset,
    trained: Trained,
) -> tuple[dict[str, Scores], dict[str, object]]:
    """Score the held-out images with the model that is published, and write everything under metrics/ but metrics.json.

    Args:
        context: of the run.
        classifier: with the weights to publish.
        examples: of stage 2.
        prepared: the split.
        images: the data.
        trained: the end of training.

    Returns:
        The scores by split, and the fields of metrics.json about the model and the data.
    """
    from job.evaluation import documents, metrics_schema
    from job.evaluation.scores import score, score_stage_ends

    run, progress, state, manifest = context.run, context.progress, trained.state, images.manifest
    with context.timing.part("evaluate"):
        scores = score(classifier, examples, prepared.rows_of, state, progress)
        published = scores["validation"]
        stage_ends = score_stage_ends(classifier, trained.end_weights, published, examples, state, progress)
        metrics = documents.metrics_document(
            state,
            trained.kept_epoch,
            scores,
            stage_ends,
            prepared,
            manifest=manifest,
            settings=context.loaded.settings,
        )
        metrics["class_weights"] = documents.class_weights_document(examples.class_weights, manifest.labels)
    if warnings := {warned["code"]: warned["text"] for warned in metrics["warnings"]}:
        progress.event("metrics.warned", severity="warning", **warnings)
    context.checkpoints.flush()
    answers = documents.answers_of(scores, manifest)
    run.write_lines("metrics/history.csv", documents.history_csv(state.history))
    run.write_lines("metrics/predictions.csv", documents.predictions_csv(manifest, scores))
    run.write("metrics/curves.json", encode(documents.curves_document(answers, manifest.labels)))
    run.write("metrics/metrics.schema.json", metrics_schema.schema_text().encode())
    if metrics["validation"]["confusion"] is None:
        run.write_lines("metrics/confusion.csv", documents.confusion_csv(answers, manifest.labels))
    return scores, metrics


def report_errors(
    context: RunContext,
    classifier: Classifier,
    scores: dict[str, Scores],
    prepared: Prepared,
    images: Dataset,
    state: TrainingState,
) -> dict[str, Any]:
    """Write the suspected label errors of all splits, and the gallery.

    Args:
        context: of the run.
        classifier: with the weights to publish.
        scores: of the held-out images, by split.
        prepared: the split.
        images: the data.
        state: has the suspected label errors of the train split.

    Returns:
        The field label_errors of metrics.json.
    """
    from job.evaluation import label_errors

    settings = context.loaded.settings.report
    suspects: list[Suspect] = []
    reasons = dict.fromkeys(prepared.rows_of, "report.label_errors is false")
    if settings.label_errors:
        reasons = dict.fromkeys(prepared.rows_of, "it failed: see the log")
        with optional(context.progress, "label errors"), context.timing.part("label_errors"):
            suspects = label_errors.suspects(images.manifest, prepared.rows_of, scores, state.label_errors)
            reasons = {} if state.label_errors else {"train": "it needs the features of stage 1: see the log"}
    summary = label_errors.summary(suspects, prepared.rows_of, reasons)
    if summary["validation"]:
        context.progress.event("label_errors.found", count=len(suspects), **summary)
        documents = (suspect.document(images.manifest) for suspect in suspects)
        context.run.write_documents("data/label_errors.jsonl", documents)
    if settings.enabled:
        write_gallery(context, classifier, scores, suspects, images, state, train=prepared.rows_of["train"])
    return summary


def write_gallery(
    context: RunContext,
    classifier: Classifier,
    scores: dict[str, Scores],
    suspects: list[Suspect],
    images: Dataset,
    state: TrainingState,
    *,
    train: NDArray[Any],
) -> None:
    """Write the most confident mistakes with their heatmaps, the most suspicious labels, and augmented images.

    Args:
        context: of the run.
        classifier: with the weights to publish.
        scores: of the held-out images, by split.
        suspects: the suspected label errors, the most suspicious first.
        images: the data.
        state: its `predict_batch` limits the images computed at once.
        train: rows of the training split.
    """
    from job.data.dataset import RANGE
    from job.evaluation import gallery, saliency

    document, settings = None, context.loaded.settings
    limit = settings.report.max_images
    with optional(context.progress, "gallery"), context.part("report"):
        mistakes = gallery.most_confident_mistakes(scores, images.manifest, limit)
        shown = suspects[:limit]
        rows = [*(mistake.row for mistake in mistakes), *(suspect.row for suspect in shown)]
        pixels = [images.pixels(np.array([row]))[0] for row in rows]
        heatmaps: Iterable[NDArray[Any]] = []
        if mistakes:
            batch_size = min(RANGE, state.predict_batch or RANGE)
            heatmaps = saliency.heatmaps(classifier, np.stack(pixels[: len(mistakes)]), batch_size)
        document = gallery.document(images.manifest, mistakes, shown, pixels, heatmaps)
        if settings.augmentation.enabled and limit:
            document["augmented"] = gallery.augmented(settings, images, train)
    if document:
        context.run.write("report/gallery.json", encode(document))


def write_model_card(context: RunContext, labels: Sequence[str], weights: Weights, metrics: dict[str, Any]) -> None:
    """Write model_card.md.

    Args:
        context: of the run.
        labels: in the order of the probabilities.
        weights: the backbone's first weights.
        metrics: metrics.json.
    """
    from job.evaluation import model_card

    card = None
    with optional(context.progress, "model card"):
        subject = model_card.Subject(
            run_id=context.run.id,
            labels=labels,
            settings=context.loaded.settings,
            metrics=metrics,
            weights=weights.document(),
            version=__version__,
        )
        card = model_card.card(subject)
    if card:
        context.run.write("model_card.md", card.encode())


def report(context: RunContext, made_by: Document) -> None:
    """Write the report, made from the files that this run has written.

    A failure costs the report, not the run: `finetune report RUN` can write it later.

    Args:
        context: of the run.
        made_by: the provenance that manifest.json will have: it is written after the report, with its checksums.
    """
    settings, run = context.loaded.settings.report, context.run
    if not settings.enabled:
        return
    manifest, files = encode({"provenance": made_by}), {}
    remedy = f"finetune report {run.uri} writes it into a folder"
    with context.part("report"), optional(context.progress, "page", remedy):
        from job.evaluation.report.page import render

        files = render(lambda name: manifest if name == "manifest.json" else run.read(name), settings)
    for name, data in files.items():
        run.write(name, data)
    if files:
        context.progress.event("report.written", run_uri=run.uri, bytes=sum(map(len, files.values())))
