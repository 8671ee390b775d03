"""The whole story of a run, from top to bottom.

config -> storage -> manifest -> dataset -> model -> stages -> evaluate -> export -> publish

Every start asks first what is already done: a published run is left as it is, and one under way goes on at the very
step where it stopped.
"""

from __future__ import annotations

import collections
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from job import __version__, storage
from job.config.settings import STAGES
from job.data import manifest, split
from job.data.labels import SPLIT_NAMES
from job.evaluation.gates import Gate
from job.observability.status import StatusFile
from job.runs import identity, publish
from job.runs.checkpoints import Data
from job.runtime import device, imports, memory, signals
from job.runtime.timing import Timing
from job.training.state import TrainingState

if TYPE_CHECKING:
    from job.config.load import Loaded
    from job.config.settings import Settings
    from job.observability.progress import Progress
    from job.runs.checkpoints import Checkpoints
    from job.runs.publish import Outcome, Run


def run(loaded: Loaded, progress: Progress) -> None:
    """Train, evaluate and publish one run; or go on with it; or find it published, and do nothing.

    Args:
        loaded: valid settings, and where each came from.
        progress: who wants to know.

    Raises:
        errors.FinetuneError: each of its kinds, with its exit code; see job/errors.py.
    """
    settings = loaded.settings
    timing = Timing()
    device.have_temporary_folder(settings.cache.dir)
    output = storage.open_store(settings.output.uri, user_project=settings.input.user_project or None)

    # Which run this is: the one that this Job works on, or the one that the settings and the data make.
    this, listing = publish.pinned_run(output, settings), None
    if this is None:
        with timing.part("list"):
            listing = list_images(settings, progress)
        this = publish.open_run(output, loaded, identity.identify(settings, listing.listed))
    outcome = this.published()
    if outcome is None:
        with this.checkpoints(settings) as checkpoints, signals.saving(checkpoints.save_if_possible):
            # It may have been published while this start waited for the claim.
            outcome = this.published() or train(loaded, this, checkpoints, listing, timing, progress)
    outcome.check()
    progress.event("run.succeeded", message="published", run_uri=this.uri)


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


@memory.exhaustion_explained()
def train(  # noqa: PLR0915 (the story in one place is the point)
    loaded: Loaded, this: Run, checkpoints: Checkpoints, listing: Data | None, timing: Timing, progress: Progress
) -> Outcome:
    """Do the work of a run that is not published, from its last checkpoint if it has one.

    Args:
        loaded: the settings.
        this: the run.
        checkpoints: its checkpoints, claimed.
        listing: what was listed by this start, if anything.
        timing: counts the seconds of each part.
        progress: who wants to know.
    """
    settings = loaded.settings
    progress.subscribe(StatusFile(this.write_status, run_id=this.id, run_uri=this.uri))
    state, before = checkpoints.load() or TrainingState(), checkpoints.load_data()
    progress.event("run.started", run_id=this.id, run_uri=this.uri, resumed=bool(state.weights))
    if before is None and listing is None:
        with timing.part("list"):
            listing = list_images(settings, progress)
        this.identify(loaded, identity.identify(settings, listing.listed), "job")
    data = before or listing
    assert data is not None, "listed now or before"

    # TensorFlow takes seconds to import: only now, when it is certain that there is work.
    with timing.part("import"), imports.uncollected():
        device.prepare()
        machine = device.configure(settings, before=checkpoints.facts, notify=progress.event)
        from job.data import cache, dataset
        from job.evaluation.metrics import history_csv, metrics_document, predictions_csv
        from job.evaluation.scores import held_out, score
        from job.export import saved_model
        from job.export.verification import Scorer, verify
        from job.model import weights
        from job.model.classifier import create_classifier
        from job.training import features, stages
        from job.training.examples import create_examples
    progress.event("device.configured", **dataclasses.asdict(machine))
    if changes := machine.changes(checkpoints.facts):
        progress.event("device.changed", severity="warning", **changes, note="the result may differ in its last bits")

    with timing.part("model"):
        classifier = create_classifier(settings.model, data.listed.labels, seed=settings.run.seed)
        origin = weights.load_into(classifier.base_model, settings.model, progress)
        classifier.pretrained = origin.source != "random"
        if state.weights:
            classifier.load_state(state.weights)
        classifier.fold(training_precision=machine.precision, xla=machine.xla)

    needs_features = state.stage == "feature_extraction" and settings.feature_extraction.epochs > 0
    # What is kept on the cache volume is used again by a later start, where it was made from the same.
    content = {"data": data.listed.digest(), "finetune": __version__}
    pixels_of = content | {"image_size": classifier.image_size, "tensorflow": machine.tensorflow}
    features_of = pixels_of | {"weights": origin.digest, "part": state.feature_batch, "device": machine.numerics()}
    with (
        cache.Cache(
            settings.cache,
            run_id=this.id,
            made_from={"encoded": content, "pixels": pixels_of, "features": features_of},
            images=len(data.listed),
            encoded_bytes=int(data.listed.size.sum()),
            image_size=classifier.image_size,
            feature_size=classifier.feature_size if needs_features else 0,
        ) as kept,
        dataset.Dataset(
            data.listed,
            kept,
            image_size=classifier.image_size,
            max_pixels=settings.input.max_pixels,
            threads=machine.threads,
            wanted=before.usable if before else None,
            user_project=settings.input.user_project,
        ) as images,
    ):
        # One pass over the data: download, check, decode, features.
        with timing.part("ingest"):
            if needs_features:
                features.extract(classifier, images, kept, state, progress)
            else:
                collections.deque(images.ingest(progress), maxlen=0)
        rows = np.flatnonzero(images.usable)
        usable = data.listed.take(rows)
        quarantined = data.quarantined + images.quarantined
        manifest.check_usable(usable, quarantined, settings.input.max_bad_fraction)
        if quarantined:
            progress.event("images.quarantined", severity="warning", count=len(quarantined), of=len(data.listed))
        sides = split.assign(
            usable,
            validation_fraction=settings.input.validation_fraction,
            test_fraction=settings.input.test_fraction,
        )
        this.write_documents("data/manifest.jsonl", usable.rows())
        this.write_documents("data/split.jsonl", split.rows(usable, sides))
        this.write_documents("data/quarantine.jsonl", map(dataclasses.asdict, quarantined))
        if before is None:
            checkpoints.save_data(Data(listed=data.listed, usable=images.usable, quarantined=quarantined))

        # The two stages: one function, two settings.
        checkpoints.facts = machine.facts()
        rows_of = {name: rows[sides == code] for code, name in SPLIT_NAMES.items()}
        examples = create_examples(classifier, images, kept.features, rows_of, seed=settings.run.seed)
        for stage in STAGES[STAGES.index(state.stage) :]:
            with timing.part(stage):
                stages.run(
                    stage,
                    getattr(settings, stage),
                    classifier,
                    examples[stage],
                    state,
                    progress=progress,
                    after_step=checkpoints.after_step,
                )
        chosen = stages.keep(settings.keep, classifier, state)
        progress.event("model.chosen", keep=settings.keep, stage=chosen.stage, epoch=chosen.epoch)

        # What the model is worth, and whether what is published answers as it does.
        exported = kept.folder / "model"
        with Scorer() as scorer:
            with timing.part("evaluate"):
                scores = score(classifier, examples["fine_tuning"], rows_of, state, progress)
            with timing.part("export"):
                saved_model.save(classifier, exported)
            with timing.part("verify"):
                sample = held_out(scores, images, settings.export.verify_images)
                verification = verify(scorer, exported, *sample)
        progress.event("model.verified", **verification)

        # Publish: files first, then what makes them count.
        checkpoints.flush()
        with timing.part("upload"):
            this.write_folder("model", exported)
            this.write_lines("metrics/history.csv", history_csv(state.history))
            this.write_lines("metrics/predictions.csv", predictions_csv(data.listed, scores))
        metrics = metrics_document(
            state,
            chosen,
            scores,
            verification=verification,
            timing=timing.document(),
            memory=device.memory_peaks(machine),
        )
        this.write("metrics/metrics.json", publish.encode(metrics))
    accuracy = scores["validation"].accuracy
    gate = Gate.of(accuracy, settings.gate.min_accuracy)
    outcome = this.finish(gate, provenance={"device": vars(machine), "weights": vars(origin)})
    progress.event("run.published", run_uri=this.uri, accuracy=accuracy)
    return outcome
