"""A complete run, from top to bottom. The arrows are the packages of job/.

config -> storage -> data -> model -> training -> evaluation -> export -> runs

Every start first reads the run's progress from the store: a published run is left unchanged, and an unfinished one
resumes at the step where it stopped.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from job import __version__, errors, storage
from job.config.settings import STAGES
from job.data import contradictions, manifest
from job.data.listing import read_listing
from job.data.prepare import QUARANTINE, Prepared, prepare
from job.errors import DataError
from job.evaluation import gates
from job.evaluation.gates import Gate
from job.observability.status import StatusFile
from job.runs import comparison, provenance, publish
from job.runs.data import Data
from job.runs.documents import encode
from job.runs.identity import identify
from job.runs.job_record import JobRecord
from job.runs.run import open_run, pinned_run
from job.runs.statement import Execution
from job.runtime import device, imports, memory, signals
from job.runtime.timing import Timing
from job.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from job.config.load import Loaded
    from job.config.settings import Settings, StageName
    from job.data.cache import Cache
    from job.data.dataset import Dataset
    from job.data.quarantine import Quarantined
    from job.evaluation.label_errors import Suspect
    from job.evaluation.scores import Scores
    from job.export.verification import Scorer
    from job.model.classifier import Classifier
    from job.model.weights import Provenance as Weights
    from job.observability.progress import Progress
    from job.runs.checkpoints import Checkpoints
    from job.runs.publish import Outcome
    from job.runs.run import Run
    from job.runtime.timing import Part
    from job.storage import OpenStore
    from job.training.examples import Examples
    from job.training.state import Arrays, EpochResult


def run(loaded: Loaded, progress: Progress) -> None:
    """Train, evaluate and publish one run. Resume it if it is unfinished; do nothing if it is published.

    Args:
        loaded: valid settings and their origins.
        progress: receives the events.

    Raises:
        errors.FinetuneError: any of its subclasses, each with its exit code; see job/errors.py.
    """
    settings = loaded.settings
    timing = Timing()
    device.ensure_temp_dir(settings.cache.dir)
    # A run that waits for the store must not be taken for one that hangs.
    patience = min(settings.storage.retry_seconds, 30 * settings.device.stall_minutes)
    retry = storage.RetryPolicy(training_seconds=patience)
    open_store = storage.opener(settings.storage, retry=retry)
    output = storage.open_output(settings.output.uri, settings.storage, retry=retry)

    job = JobRecord(output, settings.run)
    with job.attempt():
        # The run that this Job has begun, or the one identified by the settings and the data.
        run, listing, identity = pinned_run(output, settings, job), None, None
        if run is None:
            with timing.part("list"):
                listing = list_images(settings, open_store, progress)
            identity = identify(settings, open_store, listing.listed)
            run = open_run(output, loaded, identity, job)
        outcome = publish.published(run, settings.gate)
        message = f"already published on {outcome.published_at:.10}, nothing to do" if outcome else "published"
        if outcome is None:
            checkpoints = run.checkpoints(settings, identity or identify(settings, open_store), timing)
            with checkpoints, signals.saving(checkpoints.save_if_possible):
                context = RunContext(loaded, run, job, checkpoints, open_store, retry, timing, progress)
                # Another process may have published it while this one waited for the claim.
                outcome = publish.published(run, settings.gate) or train(context, listing)
        if metrics := publish.published_metrics(run):
            progress.event("run.evaluated", run_uri=run.uri, **metrics | {"gate": outcome.gate.summary()})
        outcome.check_gate()
    progress.event("run.succeeded", message=message, run_uri=run.uri, accuracy=outcome.gate.accuracy)


def list_images(settings: Settings, open_store: OpenStore, progress: Progress) -> Data:
    """List the input images; their content is not read yet.

    Raises:
        errors.DataError: the listing has fewer than two classes, or holds the same images under two labels.
    """
    source = settings.input
    if not source.uri:
        from job.data import demo_pictures  # only the demo needs Pillow

        drawn = demo_pictures.pictures(Path(settings.cache.dir or tempfile.gettempdir()), progress)
        source = source.model_copy(update={"uri": str(drawn)})
    with progress.phase("list", None, "objects") as phase:
        listed, quarantined = read_listing(source, open_store, phase.advance)
    manifest.check_classes(listed)
    contradictions.check(listed, settled=source.layout != "auto")
    progress.event("input.listed", uri=source.uri, images=len(listed), labels=len(listed.labels))
    return Data(listed=listed, quarantined=quarantined)


class RunContext(NamedTuple):
    """What every phase of a run needs.

    Attributes:
        loaded: the settings and their origins.
        run: the run.
        job: the record of the Kubernetes Job.
        checkpoints: its checkpoints; this process holds the claim.
        open_store: opens every store of the run.
        retry: the policy of all of them.
        timing: measures the seconds of each phase.
        progress: receives the events.
    """

    loaded: Loaded
    run: Run
    job: JobRecord
    checkpoints: Checkpoints
    open_store: OpenStore
    retry: storage.RetryPolicy
    timing: Timing
    progress: Progress

    @contextlib.contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Measure a part of the run that has nothing to count, and show that it is in progress."""
        with self.timing.part(name), self.progress.phase(name, None, ""):
            yield


class Trained(NamedTuple):
    """The end of training.

    Attributes:
        state: of the training.
        kept_epoch: the epoch whose weights are published.
        end_weights: the weights at the end of each stage.
    """

    state: TrainingState
    kept_epoch: EpochResult
    end_weights: dict[StageName, Arrays]


@memory.exhaustion_converted()
def train(context: RunContext, listing: Data | None) -> Outcome:
    """Train, evaluate and publish a run, from its last checkpoint if it has one.

    Args:
        context: of the run.
        listing: the data, if this process has listed them.
    """
    settings, run, checkpoints, progress = context.loaded.settings, context.run, context.checkpoints, context.progress
    state, data = checkpoints.load() or TrainingState(), load_data(context, listing)
    context.job.resumed(checkpoints.loaded)
    progress.subscribe(StatusFile(run.write_status, run_id=run.id, run_uri=run.uri, attempt=checkpoints.starts))
    progress.event("run.started", run_id=run.id, run_uri=run.uri, resumed=bool(state.weights))
    with context.part("import"), imports.without_gc():
        machine = configure_device(context)
        from job.export.verification import Scorer
        from job.model import classifier as classifiers
        from job.training.examples import create_examples
    with context.part("model"):
        classifier, weights = classifiers.build(
            settings.model,
            data.listed.labels,
            seed=settings.run.seed,
            resumed=state.weights,
            machine=machine,
            open_store=context.open_store,
            progress=progress,
        )
    with open_images(context, data, classifier, machine, weights, state) as (images, cache):
        feature_seconds = read_images(context, classifier, images, cache, state)
        prepared = prepare_data(context, data, images)
        plan_training(context, prepared, feature_seconds)
        examples = create_examples(classifier, images, cache.features, prepared.rows_of, seed=settings.run.seed)
        with tensorboard_files(context, state):
            trained = train_stages(context, classifier, examples, prepared, state)
        with Scorer() as scorer:  # it imports TensorFlow during the evaluation
            scores, metrics = evaluate(context, classifier, examples["fine_tuning"], prepared, images, trained)
            metrics |= export(context, classifier, scorer, scores, prepared, images, scratch=cache.folder)
        metrics["label_errors"] = report_errors(context, classifier, scores, prepared, images, trained.state)
        judge = gate_judge(context, metrics, scores, images, scratch=cache.folder)
        metrics["gate"] = (gate := judge()).summary()
        timing = context.timing.document() | {"starts": checkpoints.starts}
        document = encode(metrics | {"timing": timing, "memory": device.memory_peaks(machine)})
        run.write("metrics/metrics.json", document)
        write_model_card(context, data.listed.labels, weights, json.loads(document))
        report(context)
        with progress.phase("publish", None, ""):
            outcome = publish.finish(run, gate, execution(context, machine, weights), judge=judge)
    progress.event("run.published", run_uri=run.uri, accuracy=outcome.gate.accuracy)
    return outcome


def execution(context: RunContext, machine: device.Device, weights: Weights) -> Execution:
    """Return how the run was executed, for its provenance."""
    made_by = provenance.document(context.loaded.settings.run)
    return Execution(
        provenance=made_by | {"device": vars(machine), "weights": vars(weights)},
        seconds=context.timing.document(),
        gpus=len(machine.gpus),
        starts=context.checkpoints.starts,
        attempts=context.job.attempts(),
    )


def load_data(context: RunContext, listing: Data | None) -> Data:
    """Return the data of the run as an earlier start saved them; save those of the first start.

    Args:
        context: of the run.
        listing: the data, if this process has listed them. They may have been moved since they were saved.
    """
    saved = context.checkpoints.load_data()
    if saved is None and listing is None:  # what was saved is damaged; the data must not have changed since
        settings, open_store = context.loaded.settings, context.open_store
        with context.timing.part("list"):
            listing = list_images(settings, open_store, context.progress)
        context.run.record_identity(context.loaded, identify(settings, open_store, listing.listed), "job")
    data = saved.relocated(listing) if saved and listing else saved or listing
    assert data is not None
    if data is not saved:
        context.checkpoints.save_data(data)
    if data.usable is None:  # the pass over the data is not over
        with quarantine_published(context.run, lambda: data.quarantined):
            manifest.check_usable(data.listed, data.quarantined, context.loaded.settings.input.max_bad_fraction)
    return data


def configure_device(context: RunContext) -> device.Device:
    """Import TensorFlow and configure the device. The import takes seconds, so a published run never gets here."""
    previous = context.checkpoints.facts
    device.prepare()
    machine = device.configure(context.loaded.settings, before=previous, notify=context.progress.event)
    context.progress.event("device.configured", **dataclasses.asdict(machine))
    if changes := machine.changes(previous):
        note = "the result may differ in its last bits"
        context.progress.event("device.changed", severity="warning", **changes, note=note)
    context.checkpoints.facts = machine.facts()
    context.job.gpus = len(machine.gpus)
    return machine


@contextlib.contextmanager
def open_images(
    context: RunContext,
    data: Data,
    classifier: Classifier,
    machine: device.Device,
    weights: Weights,
    state: TrainingState,
) -> Iterator[tuple[Dataset, Cache]]:
    """Open the images and the cache that they are read into.

    Args:
        context: of the run.
        data: which images, and where they are stored.
        classifier: with its pretrained weights.
        machine: the device.
        weights: which those are.
        state: at the start of training; the cache has features only if stage 1 is not over.

    Yields:
        The images and the cache.
    """
    from job.data.cache import open_cache
    from job.data.dataset import Dataset
    from job.training import features

    settings = context.loaded.settings
    needs_features = state.stage == "feature_extraction" and settings.feature_extraction.epochs > 0
    with (
        open_cache(
            settings.cache,
            run_id=context.run.id,
            manifest=data.listed,
            image_size=classifier.image_size,
            feature_size=classifier.feature_size if needs_features else 0,
            pixels_depend_on={"tensorflow": machine.tensorflow},
            features_depend_on=features.dependencies(weights.digest, machine, state),
        ) as cache,
        Dataset(
            data.listed,
            cache,
            image_size=classifier.image_size,
            settings=settings.input,
            threads=machine.threads,
            selected=data.usable,
            open_store=context.open_store,
        ) as images,
    ):
        context.progress.event("cache.opened", **cache.facts)
        yield images, cache


def read_images(
    context: RunContext, classifier: Classifier, images: Dataset, cache: Cache, state: TrainingState
) -> float | None:
    """Make the one pass over the data: download, check, decode, compute features.

    Args:
        context: of the run.
        classifier: with its pretrained weights.
        images: the data.
        cache: where features are written, if it has room for them.
        state: at the start of training.

    Returns:
        The seconds that the features of an image took; None if none were computed.
    """
    from job.training import features

    progress, check = context.progress, context.checkpoints.check
    with context.timing.part("ingest"):
        if cache.needs_features:
            return features.extract(classifier, images, cache, state, progress, check=check)
        collections.deque(images.ingest(progress, check=check), maxlen=0)
        return None


def prepare_data(context: RunContext, data: Data, images: Dataset) -> Prepared:
    """Check and split the data, and publish the reports. Save which images are usable, unless an earlier start has.

    Args:
        context: of the run.
        data: as listed, or as an earlier start saved them.
        images: after the pass over the data.
    """
    settings, hashes = context.loaded.settings.input, images.hashes if data.usable is None else data.hashes
    with quarantine_published(context.run, lambda: data.quarantined + images.quarantined):
        prepared = prepare(data.listed, data.quarantined, images, settings, context.progress, hashes=hashes)
    for name, documents in prepared.documents():
        context.run.write_documents(name, documents)
    if data.usable is None:
        context.checkpoints.save_data(
            Data(listed=data.listed, usable=images.usable, hashes=hashes, quarantined=prepared.quarantined)
        )
    return prepared


@contextlib.contextmanager
def quarantine_published(run: Run, quarantined: Callable[[], Sequence[Quarantined]]) -> Iterator[None]:
    """Publish the list of unusable images where data are rejected: it is what their owner has to work through.

    Args:
        run: the run.
        quarantined: returns the images.

    Raises:
        errors.DataError: as raised in the block, its remedy naming the list.
    """
    try:
        yield
    except DataError as error:
        run.write_documents(QUARANTINE, map(dataclasses.asdict, quarantined()))
        listed = f"; {run.uri}/{QUARANTINE} has each unusable image with its reason"
        raise DataError(error.message, remedy=error.remedy + (listed if quarantined() else "")) from error


def plan_training(context: RunContext, prepared: Prepared, feature_seconds: float | None) -> None:
    """Report the epochs of both stages, and estimate those of stage 2.

    Args:
        context: of the run.
        prepared: the split.
        feature_seconds: that the features of an image took; None if none were computed.
    """
    epochs = {stage: getattr(context.loaded.settings, stage).epochs for stage in STAGES}
    estimates = {}
    if feature_seconds is not None:
        train, validation = (len(prepared.rows_of[name]) for name in ("train", "validation"))
        # The backward pass takes about twice as long as the forward pass.
        estimates["fine_tuning"] = round(feature_seconds * (3 * train + validation), 1)
    context.progress.event("training.planned", epochs=epochs, epoch_seconds=estimates)


def train_stages(
    context: RunContext,
    classifier: Classifier,
    examples: Mapping[StageName, Examples],
    prepared: Prepared,
    state: TrainingState,
) -> Trained:
    """Train both stages, and load the weights that `settings.keep` selects."""
    from job.training import stages

    settings = context.loaded.settings
    context.retry.is_training.set()
    for stage in STAGES[STAGES.index(state.stage) :]:
        with context.timing.part(stage):
            stages.run(
                stage,
                getattr(settings, stage),
                classifier,
                examples[stage],
                state,
                progress=context.progress,
                save=context.checkpoints.save,
            )
        if stage == "feature_extraction":  # only now are its features at hand
            examine_training_labels(context, classifier, examples[stage], prepared, state)
    end_weights = stages.end_weights(classifier, state)
    kept_epoch = stages.load_kept_weights(settings.keep, classifier, state)
    context.progress.event(
        "model.chosen",
        keep=settings.keep,
        stage=kept_epoch.stage,
        epoch=kept_epoch.epoch,
        epoch_total=state.epoch_total(kept_epoch),
    )
    return Trained(state, kept_epoch, end_weights)


@contextlib.contextmanager
def tensorboard_files(context: RunContext, state: TrainingState) -> Iterator[None]:
    """Write TensorBoard files while the block trains, if the settings ask for them."""
    if not context.loaded.settings.log.tensorboard:
        yield
        return
    from job.evaluation.tensorboard import TensorBoardFiles

    with context.progress.listening(TensorBoardFiles(state.history, context.run.write)):
        yield


@contextlib.contextmanager
def optional(context: RunContext, part: str) -> Iterator[None]:
    """Let the failure of a block cost a part of the report, not the run.

    Args:
        context: of the run.
        part: what is missing if it fails, for the warning.

    Raises:
        errors.StoppedError, errors.AccessError, errors.UnavailableError: what comes after the block would fail, too.
    """
    try:
        yield
    except (errors.StoppedError, errors.AccessError, errors.UnavailableError):
        raise
    except Exception as error:  # noqa: BLE001  # whatever it is, the model is trained
        problem = f"{type(error).__name__}: {error}"
        context.progress.event("report.part_failed", severity="warning", part=part, error=problem)


def examine_training_labels(
    context: RunContext, classifier: Classifier, examples: Examples, prepared: Prepared, state: TrainingState
) -> None:
    """Look for label errors among the training images. The state keeps the result: a later start has no features.

    Args:
        context: of the run.
        classifier: left unchanged.
        examples: of stage 1.
        prepared: the split.
        state: at the end of stage 1.
    """
    from job.data import split
    from job.data.labels import TRAIN
    from job.evaluation import label_errors
    from job.training.cross_validation import FoldHeads, folds, has_seen_label

    settings = context.loaded.settings
    stage = settings.feature_extraction
    if not (settings.report.label_errors and stage.epochs):
        return
    with optional(context, "label errors of the train split"), context.timing.part("label_errors"):
        fold = folds(split.group_hashes(prepared.usable, prepared.group_keys)[prepared.splits == TRAIN])
        labels = examples.labels[examples.train]
        heads = FoldHeads(classifier, examples, fold)
        learning_rate = stage.learning_rate * state.learning_rate_scale
        heads.train(stage, learning_rate, context.progress, check=context.checkpoints.check)
        state.label_errors = label_errors.find(labels, has_seen_label(labels, fold), heads.predict)


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
        seed = context.loaded.settings.run.seed
        metrics = documents.metrics_document(
            state, trained.kept_epoch, scores, stage_ends, prepared, manifest=manifest, seed=seed
        )
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


def report(context: RunContext) -> None:
    """Write the report, made from the files that this run has written.

    A failure costs the report, not the run: `finetune report RUN` can write it later.
    """
    settings, run = context.loaded.settings.report, context.run
    if not settings.enabled:
        return
    with context.progress.phase("report", None, ""):
        try:
            from job.evaluation.report.page import render

            files = render(run.read, settings)
        except Exception as error:  # noqa: BLE001  # whatever fails in it
            remedy = f"finetune report {run.uri} writes it into a folder"
            facts = {"error": f"{type(error).__name__}: {error}", "remedy": remedy}
            context.progress.event("report.failed", severity="warning", **facts)
            return
        for name, data in files.items():
            run.write(name, data)
    context.progress.event("report.written", run_uri=run.uri, bytes=sum(map(len, files.values())))


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
        with optional(context, "label errors"), context.timing.part("label_errors"):
            suspects = label_errors.suspects(images.manifest, prepared.rows_of, scores, state.label_errors)
            reasons = {} if state.label_errors else {"train": "it needs the features of stage 1: see the log"}
    summary = label_errors.summary(suspects, prepared.rows_of, reasons)
    if summary["validation"]:
        context.progress.event("label_errors.found", count=len(suspects), **summary)
        documents = (suspect.document(images.manifest) for suspect in suspects)
        context.run.write_documents("data/label_errors.jsonl", documents)
    if settings.enabled:
        write_gallery(context, classifier, scores, suspects, images, state)
    return summary


def write_gallery(
    context: RunContext,
    classifier: Classifier,
    scores: dict[str, Scores],
    suspects: list[Suspect],
    images: Dataset,
    state: TrainingState,
) -> None:
    """Write the most confident mistakes, each with its heatmap, and the most suspicious labels as pictures.

    Args:
        context: of the run.
        classifier: with the weights to publish.
        scores: of the held-out images, by split.
        suspects: the suspected label errors, the most suspicious first.
        images: the data.
        state: its `predict_batch` limits the images computed at once.
    """
    from job.data.dataset import RANGE
    from job.evaluation import gallery, saliency

    document, limit = None, context.loaded.settings.report.max_images
    with optional(context, "gallery"), context.part("report"):
        mistakes = gallery.most_confident_mistakes(scores, images.manifest, limit)
        shown = suspects[:limit]
        rows = [*(mistake.row for mistake in mistakes), *(suspect.row for suspect in shown)]
        pixels = [images.pixels(np.array([row]))[0] for row in rows]
        heatmaps: Iterable[NDArray[Any]] = []
        if mistakes:
            batch_size = min(RANGE, state.predict_batch or RANGE)
            heatmaps = saliency.heatmaps(classifier, np.stack(pixels[: len(mistakes)]), batch_size)
        document = gallery.document(images.manifest, mistakes, shown, pixels, heatmaps)
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
    with optional(context, "model card"):
        subject = model_card.Subject(
            run_id=context.run.id,
            labels=labels,
            settings=context.loaded.settings,
            metrics=metrics,
            weights=vars(weights),
            version=__version__,
        )
        card = model_card.card(subject)
    if card:
        context.run.write("model_card.md", card.encode())
