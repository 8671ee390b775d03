"""The whole story of a run, from top to bottom; its arrows are the packages of job/.

config -> storage -> data -> model -> training -> evaluation -> export -> runs

Every start first asks the store what is already done: a published run is left as it is, and an unfinished one resumes
at the step where it stopped.
"""

from __future__ import annotations

import collections
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from job import storage
from job.config.settings import STAGES
from job.data import manifest
from job.data.prepare import Prepared, prepare
from job.evaluation.gates import Gate
from job.observability.status import StatusFile
from job.runs import identity, publish
from job.runs.checkpoints import Data
from job.runtime import device, imports, memory, signals
from job.runtime.timing import Timing
from job.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from job.config.load import Loaded
    from job.config.settings import Settings, StageName
    from job.data.dataset import Dataset
    from job.evaluation.scores import Scores
    from job.model.classifier import Classifier
    from job.observability.progress import Progress
    from job.runs.checkpoints import Checkpoints
    from job.runs.publish import Outcome, Run
    from job.training.examples import Examples
    from job.training.state import EpochResult


def run(loaded: Loaded, progress: Progress) -> None:
    """Train, evaluate and publish one run; or resume it; or find it published, and do nothing.

    Args:
        loaded: valid settings, and where each came from.
        progress: receives the events.

    Raises:
        errors.FinetuneError: each of its kinds, with its exit code; see job/errors.py.
    """
    settings = loaded.settings
    timing = Timing()
    device.ensure_temp_dir(settings.cache.dir)
    output = storage.open_store(settings.output.uri, user_project=settings.input.user_project or None)

    # Which run this is: the one that this Job works on, or the one that the settings and the data make.
    run, listing = publish.pinned_run(output, settings), None
    if run is None:
        with timing.part("list"):
            listing = list_images(settings, progress)
        run = publish.open_run(output, loaded, identity.identify(settings, listing.listed))
    outcome = run.published()
    if outcome is None:
        with run.checkpoints(settings) as checkpoints, signals.saving(checkpoints.save_if_possible):
            # It may have been published while this start waited for the claim.
            outcome = run.published() or train(Work(loaded, run, checkpoints, timing, progress), listing)
    outcome.check()
    progress.event("run.succeeded", message="published", run_uri=run.uri)


def list_images(settings: Settings, progress: Progress) -> Data:
    """Return what there is to train on, as far as a listing tells.

    Raises:
        errors.DataError: there is nothing that a classifier can be trained on.
    """
    source = settings.input
    if not source.uri:
        from job.data import demo_pictures  # nobody else needs Pillow

        drawn = demo_pictures.pictures(Path(settings.cache.dir or tempfile.gettempdir()))
        source = source.model_copy(update={"uri": str(drawn)})
    with progress.phase("list", None, "objects") as phase:
        listed, quarantined = manifest.read(source, phase.advance)
    manifest.check_usable(listed, quarantined, settings.input.max_bad_fraction)
    progress.event("input.listed", uri=source.uri, images=len(listed), labels=len(listed.labels))
    return Data(listed=listed, usable=np.ones(len(listed), bool), quarantined=quarantined)


class Work(NamedTuple):
    """What every part of the work needs.

    Attributes:
        loaded: the settings, and where each came from.
        run: the run.
        checkpoints: its checkpoints, claimed.
        timing: counts the seconds of each part.
        progress: receives the events.
    """

    loaded: Loaded
    run: Run
    checkpoints: Checkpoints
    timing: Timing
    progress: Progress


@memory.exhaustion_converted()
def train(work: Work, listing: Data | None) -> Outcome:
    """Do the work of a run that is not published, from its last checkpoint if it has one.

    Args:
        work: what every part of it needs.
        listing: what this start has listed, if anything.
    """
    settings, run, checkpoints, progress = work.loaded.settings, work.run, work.checkpoints, work.progress
    progress.subscribe(StatusFile(run.write_status, run_id=run.id, run_uri=run.uri))
    state, final = checkpoints.load() or TrainingState(), checkpoints.load_data()
    progress.event("run.started", run_id=run.id, run_uri=run.uri, resumed=bool(state.weights))
    data = final or listing or list_again(work)
    with work.timing.part("import"), imports.without_gc():
        machine = configure_device(work)
        from job.data.cache import open_cache
        from job.data.dataset import Dataset
        from job.evaluation.metrics import metrics_document
        from job.model import classifier as classifiers
        from job.training import features
        from job.training.examples import create_examples
    with work.timing.part("model"):
        classifier, weights = classifiers.build(
            settings.model,
            data.listed.labels,
            seed=settings.run.seed,
            resumed=state.weights,
            training_precision=machine.precision,
            xla=machine.xla,
            progress=progress,
        )
    needs_features = state.stage == "feature_extraction" and settings.feature_extraction.epochs > 0
    with (
        open_cache(
            settings.cache,
            run_id=run.id,
            manifest=data.listed,
            image_size=classifier.image_size,
            feature_size=classifier.feature_size if needs_features else 0,
            pixels_depend_on={"tensorflow": machine.tensorflow},
            features_depend_on=features.depend_on(weights.digest, machine, state),
        ) as cache,
        Dataset(
            data.listed,
            cache,
            image_size=classifier.image_size,
            max_pixels=settings.input.max_pixels,
            threads=machine.threads,
            selected=final.usable if final else None,
            user_project=settings.input.user_project,
        ) as images,
    ):
        with work.timing.part("ingest"):  # one pass over the data: download, check, decode, features
            if needs_features:
                features.extract(classifier, images, cache, state, progress)
            else:
                collections.deque(images.ingest(progress), maxlen=0)
        prepared = describe_data(work, data, images, is_final=final is not None)
        examples = create_examples(classifier, images, cache.features, prepared.rows_of, seed=settings.run.seed)
        kept = train_stages(work, classifier, examples, state)
        scores, further = export(work, classifier, examples, images, prepared, state, scratch=cache.folder)
        further |= {"timing": work.timing.document(), "memory": device.memory_peaks(machine)}
        run.write("metrics/metrics.json", publish.encode(metrics_document(state, kept, scores, **further)))
    outcome = run.finish(
        Gate.of(scores["validation"].accuracy, settings.gate.min_accuracy),
        provenance={"device": vars(machine), "weights": vars(weights)},
    )
    progress.event("run.published", run_uri=run.uri, accuracy=outcome.gate.accuracy)
    return outcome


def list_again(work: Work) -> Data:
    """List the data of a Job whose first Pod ended before it knew them; they must still be those of the run."""
    with work.timing.part("list"):
        listing = list_images(work.loaded.settings, work.progress)
    work.run.identify(work.loaded, identity.identify(work.loaded.settings, listing.listed), "job")
    return listing


def configure_device(work: Work) -> device.Device:
    """Import TensorFlow on the device that is found. It takes seconds: only now is it certain that there is work."""
    before = work.checkpoints.facts
    device.prepare()
    machine = device.configure(work.loaded.settings, before=before, notify=work.progress.event)
    work.progress.event("device.configured", **dataclasses.asdict(machine))
    if changes := machine.changes(before):
        note = "the result may differ in its last bits"
        work.progress.event("device.changed", severity="warning", **changes, note=note)
    work.checkpoints.facts = machine.facts()
    return machine


def describe_data(work: Work, data: Data, images: Dataset, *, is_final: bool) -> Prepared:
    """Check, split and publish what the pass over the data found; keep it for later starts, unless one has before."""
    prepared = prepare(data.listed, data.quarantined, images, work.loaded.settings.input, work.progress)
    for name, documents in prepared.documents():
        work.run.write_documents(name, documents)
    if not is_final:
        final = Data(listed=data.listed, usable=images.usable, quarantined=prepared.quarantined)
        work.checkpoints.save_data(final)
    return prepared


def train_stages(
    work: Work, classifier: Classifier, examples: Mapping[StageName, Examples], state: TrainingState
) -> EpochResult:
    """Train both stages: one function, called with two settings. Load the weights to keep, and return their epoch."""
    from job.training import stages

    settings = work.loaded.settings
    for stage in STAGES[STAGES.index(state.stage) :]:
        with work.timing.part(stage):
            stages.run(
                stage,
                getattr(settings, stage),
                classifier,
                examples[stage],
                state,
                progress=work.progress,
                save=work.checkpoints.save,
            )
    kept = stages.keep(settings.keep, classifier, state)
    work.progress.event("model.chosen", keep=settings.keep, stage=kept.stage, epoch=kept.epoch)
    return kept


def export(
    work: Work,
    classifier: Classifier,
    examples: Mapping[StageName, Examples],
    images: Dataset,
    prepared: Prepared,
    state: TrainingState,
    *,
    scratch: Path,
) -> tuple[dict[str, Scores], dict[str, object]]:
    """Score the model, export it, check that the export answers as the run did, and write it with its predictions.

    Args:
        work: what every part needs.
        classifier: with the weights that are published.
        examples: of both stages.
        images: the data.
        prepared: their split.
        state: at the end of training.
        scratch: a folder for the exported model.

    Returns:
        The scores by split, and what else metrics.json says of the exported model.
    """
    from job.evaluation.metrics import history_csv, predictions_csv
    from job.evaluation.scores import held_out, score
    from job.export import saved_model
    from job.export.verification import Scorer, verify

    timing, exported = work.timing, scratch / "model"
    with Scorer() as scorer:
        with timing.part("evaluate"):
            scores = score(classifier, examples["fine_tuning"], prepared.rows_of, state, work.progress)
        with timing.part("export"):
            saved_model.save(classifier, exported)
        with timing.part("verify"):
            sample = held_out(scores, images, work.loaded.settings.export.verify_images)
            verification = verify(scorer, exported, *sample)
    work.progress.event("model.verified", **verification)
    work.checkpoints.flush()
    with timing.part("upload"):
        work.run.write_folder("model", exported)
        work.run.write_lines("metrics/history.csv", history_csv(state.history))
        work.run.write_lines("metrics/predictions.csv", predictions_csv(images.manifest, scores))
    return scores, {"verification": verification}
