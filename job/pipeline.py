"""The whole story of a run, from top to bottom.

config -> storage -> manifest -> dataset -> model -> stages -> evaluate -> export -> publish
"""

from __future__ import annotations

import collections
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from job import demo, device, identity, manifest, publish, split, storage
from job.labels import SPLIT_NAMES
from job.status import StatusFile
from job.timing import Timing

if TYPE_CHECKING:
    from job.config import Loaded
    from job.progress import Progress


def run(loaded: Loaded, progress: Progress) -> None:  # noqa: PLR0915 (the whole story in one place is the point)
    """Train, evaluate and publish one run; or find it published, and do nothing.

    Args:
        loaded: valid settings, and where each came from.
        progress: who wants to know.

    Raises:
        errors.FinetuneError: each of its kinds, with its exit code; see job/errors.py.
    """
    settings = loaded.settings
    timing = Timing()

    # What there is to train on, and which run that makes.
    with timing.part("list"):
        output = storage.open_store(settings.output.uri)
        source = settings.input
        if not source.uri:
            drawn = demo.pictures(Path(settings.cache.dir or tempfile.gettempdir()))
            source = source.model_copy(update={"uri": str(drawn)})
        listed, quarantined = manifest.read(source)
        manifest.check_usable(listed, quarantined, settings.input.max_bad_fraction)
        progress.event("input.listed", uri=source.uri, images=len(listed), labels=len(listed.labels))
        this = publish.open_run(output, loaded, identity.identify(settings, listed))
    if published := this.published():
        published.check()
        progress.event("run.succeeded", message="published before: nothing to do", run_uri=this.uri)
        return
    progress.subscribe(StatusFile(this.write_status, run_id=this.id, run_uri=this.uri))
    progress.event("run.started", run_id=this.id, run_uri=this.uri)

    # TensorFlow takes seconds to import: only now, when it is certain that there is work.
    with timing.part("import"):
        device.prepare()
        machine = device.configure(settings)
        from job import cache, dataset, evaluate, export, features, model, stages, weights
    progress.event("device.configured", **vars(machine))

    with timing.part("model"):
        classifier = model.create(settings.model, listed.labels, seed=settings.run.seed)
        origin = weights.load_into(classifier.base_model, settings.model, progress)
        classifier.fold()

    with (
        cache.Cache(
            settings.cache,
            images=len(listed),
            encoded_bytes=int(listed.size.sum()),
            image_size=classifier.image_size,
            feature_size=classifier.feature_size if settings.feature_extraction.epochs else 0,
        ) as kept,
        dataset.Dataset(
            listed,
            kept,
            image_size=classifier.image_size,
            max_pixels=settings.input.max_pixels,
            threads=machine.threads,
        ) as images,
    ):
        # One pass over the data: download, check, decode, features.
        with timing.part("ingest"):
            batches = images.ingest(progress)
            if settings.feature_extraction.epochs:
                features.extract(classifier, batches, kept.features)
            else:
                collections.deque(batches, maxlen=0)
            rows = np.flatnonzero(images.usable)
            quarantined += images.quarantined
            manifest.check_usable(listed.take(rows), quarantined, settings.input.max_bad_fraction)

        usable = listed.take(rows)
        sides = split.assign(
            usable,
            validation_fraction=settings.input.validation_fraction,
            test_fraction=settings.input.test_fraction,
        )
        this.write("data/manifest.jsonl", publish.encode_lines(usable.rows()))
        this.write("data/split.jsonl", publish.encode_lines(split.rows(usable, sides)))
        this.write("data/quarantine.jsonl", publish.encode_lines(dataclasses.asdict(image) for image in quarantined))

        # The two stages: one function, two settings.
        rows_of = {name: rows[sides == code] for code, name in SPLIT_NAMES.items()}
        examples = stages.examples(classifier, images, kept.features, rows_of)
        state = stages.TrainingState()
        for stage in model.STAGES:
            with timing.part(stage):
                stages.run(
                    stage,
                    getattr(settings, stage),
                    classifier,
                    examples[stage],
                    state,
                    seed=settings.run.seed,
                    progress=progress,
                )
        chosen = stages.keep(settings.keep, classifier, state)
        progress.event("model.chosen", keep=settings.keep, stage=chosen.stage, epoch=chosen.epoch)

        # What the model is worth, and whether what is published answers as it does.
        with timing.part("evaluate"):
            scores = evaluate.score(classifier, examples["fine_tuning"], rows_of)
        exported = kept.folder / "model"
        with export.Scorer() as scorer:
            with timing.part("export"):
                export.save(classifier, exported)
            with timing.part("verify"):
                held_out = evaluate.held_out(scores, images, settings.export.verify_images)
                verification = export.verify(scorer, exported, *held_out)
        progress.event("model.verified", **verification)

        # Publish: files first, then what makes them count.
        with timing.part("upload"):
            this.write_folder("model", exported)
            this.write("metrics/history.csv", evaluate.history_csv(state.history))
            this.write("metrics/predictions.csv", evaluate.predictions_csv(listed, scores))
        metrics = evaluate.metrics(state, chosen, scores, verification=verification, timing=timing.document())
        this.write("metrics/metrics.json", publish.encode(metrics))
    accuracy = scores["validation"].accuracy
    gate = publish.Gate(
        passed=accuracy >= settings.gate.min_accuracy, accuracy=accuracy, min_accuracy=settings.gate.min_accuracy
    )
    outcome = this.finish(gate, provenance={"device": vars(machine), "weights": vars(origin)})
    progress.event("run.published", run_uri=this.uri, accuracy=accuracy)
    outcome.check()
    progress.event("run.succeeded", message="published", run_uri=this.uri)
