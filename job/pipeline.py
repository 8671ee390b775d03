"""A complete run, from top to bottom. The arrows are the packages of job/.

config -> storage -> data -> model -> training -> evaluation -> export -> runs

Every start first reads the run's progress from the store: a published run is left unchanged, and an unfinished one
resumes at the step where it stopped.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from job import storage
from job.observability.status import StatusFile
from job.phases.context import RunContext
from job.phases.data import list_images, load_data, open_images, prepare_data, read_images
from job.phases.device import configure_device
from job.phases.evidence import evaluate, report, report_errors, write_model_card
from job.phases.export import execution, export, gate_judge, made_by
from job.phases.sharing import share_state, unshared
from job.phases.training import examples_of, plan_training, tensorboard_files, train_stages
from job.phases.weights import build_classifier, find_warm_start, start_head, warm_start
from job.phases.workers import follow
from job.runs import publish
from job.runs.documents import encode
from job.runs.identity import identify
from job.runs.job_record import JobRecord
from job.runs.run import open_run, pinned_run
from job.runtime import cluster, device, imports, memory, signals
from job.runtime.timing import Timing
from job.training.state import TrainingState

if TYPE_CHECKING:
    from job.config.load import Loaded
    from job.observability.progress import Progress
    from job.runs.data import Data
    from job.runs.publish import Outcome


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

    job = JobRecord(output, settings.run, loses_cache=settings.cache.volume_limit_bytes is not None)
    if settings.workers.index:  # worker 0 does what follows, and the others train beside it
        follow(loaded, output, job, open_store, retry=retry, timing=timing, progress=progress)
        return
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


@memory.exhaustion_converted()
@cluster.loss_converted()
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
    find_warm_start(settings, context.open_store, state)  # before the workers meet: one model for all
    with context.part("import"), imports.fast():
        context, machine = configure_device(context, state)
        from job.export.verification import Scorer
    with context.part("model"), warm_start(settings, context.open_store, state) as published:
        classifier, weights = build_classifier(context, data.listed.labels, machine, state, published)
    with open_images(context, data, classifier, machine, weights, state) as (images, cache):
        feature_seconds = read_images(context, classifier, images, cache, state)
        prepared = prepare_data(context, data, images, published)
        plan_training(context, prepared, cache, feature_seconds)
        examples = examples_of(context, classifier, images, cache, prepared, state)
        if not state.weights:  # it is a new run
            start_head(settings.train, classifier, examples["fine_tuning"], weights, progress)
        share_state(context, classifier, state)
        with tensorboard_files(context, state):
            trained = train_stages(context, classifier, examples, prepared, state)
        examples = unshared(context, examples)
        with Scorer() as scorer:  # it imports TensorFlow during the evaluation
            scores, metrics = evaluate(context, classifier, examples["fine_tuning"], prepared, images, trained)
            metrics |= export(context, classifier, scorer, scores, prepared, images, scratch=cache.folder)
        metrics["label_errors"] = report_errors(context, classifier, scores, prepared, images, trained.state)
        judge = gate_judge(context, metrics, scores, images, scratch=cache.folder)
        metrics["gate"] = (gate := judge()).summary()
        timing = context.timing.document() | {"starts": checkpoints.starts, "gpus": context.job.gpus}
        document = encode(metrics | {"timing": timing, "memory": device.memory_peaks(machine)})
        run.write("metrics/metrics.json", document)
        write_model_card(context, data.listed.labels, weights, json.loads(document))
        report(context, maker := made_by(settings, machine, weights))
        with progress.phase("publish", None, ""):
            outcome = publish.finish(run, gate, execution(context, maker), judge=judge)
    progress.event("run.published", run_uri=run.uri, accuracy=outcome.gate.accuracy)
    return outcome
