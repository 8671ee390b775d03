"""The phases of a run with several workers: how they meet, what worker 0 shares, and what the others do.

Worker 0 runs the whole pipeline; the others train beside it, and end as it does.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from job.data.prepare import prepare
from job.phases.context import RunContext
from job.phases.data import list_images, open_images
from job.phases.device import configure_device
from job.phases.training import examples_of, train_stages
from job.phases.weights import build_classifier, warm_start
from job.runs.followed import FollowedCheckpoints, FollowedRun
from job.runs.identity import identify
from job.runs.run import Run
from job.runtime import cluster, device, imports, memory
from job.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from job.config.load import Loaded
    from job.config.settings import StageName
    from job.data.cache import Cache
    from job.data.cache_files import Rows
    from job.data.dataset import Dataset
    from job.data.prepare import Prepared
    from job.model.classifier import Classifier
    from job.observability.progress import Progress
    from job.runs.data import Data
    from job.runs.job_record import JobRecord
    from job.runs.publish import Outcome
    from job.runtime.timing import Timing
    from job.storage import OpenStore, RetryPolicy, Store
    from job.training.examples import Examples

POLL_SECONDS = 3.0
"""Pause between two looks at the run."""


def share(
    context: RunContext, classifier: Classifier, images: Dataset, cache: Cache, prepared: Prepared, state: TrainingState
) -> None:
    """Send the other workers the state, the weights, and what the cache holds for training. Without workers, nothing.

    Args:
        context: of the run.
        classifier: at the start of training.
        images: the data, after the pass over them.
        cache: has the features, those of augmented images, and the frozen part's outputs.
        prepared: the split.
        state: at the start of training.
    """
    if context.peers is None:
        return
    from job.training import sharing

    replicas = context.replicas
    assert replicas is not None
    sharing.send_state(replicas, state, classifier)
    for name, rows, slices in _shared_rows(context, images, cache, prepared):
        sharing.share_rows(replicas, rows, slices, name, context.progress)


def follow(
    loaded: Loaded,
    output: Store,
    job: JobRecord,
    open_store: OpenStore,
    *,
    retry: RetryPolicy,
    timing: Timing,
    progress: Progress,
) -> None:
    """Train in a worker other than worker 0, and wait until the run is published.

    Raises:
        errors.GateError: it is published below the gate.
        errors.PeerLostError: worker 0 has ended, or another one has: start again.
        errors.FinetuneError: worker 0 has ended with an error that a further start would not change; or an own error.
    """
    settings = loaded.settings
    followed = FollowedRun(output, settings.gate, job, progress)
    visitor = cluster.Visitor(settings.workers, settings.run.job_uid)
    progress.event("workers.waiting", missing=[settings.workers.addresses[0]])
    while (found := followed.outcome()) is None:
        device.prepare()
        device.set_kernel_cache(settings.cache.dir)
        device.import_tensorflow()  # takes seconds: before worker 0 waits for this one
        if met := visitor.ask(POLL_SECONDS):
            document, peers = met
            run = Run(output, document["run_id"])
            checkpoints = run.checkpoints(settings, identify(settings, open_store), timing, FollowedCheckpoints)
            assert isinstance(checkpoints, FollowedCheckpoints)
            checkpoints.check_peers, checkpoints.facts = peers.check, document["facts"]
            context = RunContext(loaded, run, job, checkpoints, open_store, retry, timing, progress, peers=peers)
            found = train(context, TrainingState.from_document(document["state"], {}), followed)
            break
    run, outcome = found
    outcome.check_gate()
    progress.event("run.succeeded", message="published", run_uri=run.uri, accuracy=outcome.gate.accuracy)


@memory.exhaustion_converted()
@cluster.loss_converted()
def train(context: RunContext, state: TrainingState, followed: FollowedRun) -> tuple[Run, Outcome]:
    """Train both stages beside worker 0, from its state and with its features; return the published run.

    Args:
        context: of the run.
        state: without arrays, from the meeting.
        followed: the run.
    """
    settings, progress = context.loaded.settings, context.progress
    with context.part("import"), imports.without_gc():
        context, machine = configure_device(context, state)
    data = wait_for_data(context, followed)
    with context.part("model"), warm_start(settings, context.open_store, state) as published:
        # note: its variables are created by all workers at once, and worker 0 does so before its pass over the data
        classifier, weights = build_classifier(context, data.listed.labels, machine, state, published)
    if data.usable is None:
        data = wait_for_data(context, followed)
    if not settings.input.uri:  # the pictures of the demo are drawn by each worker
        data = data.relocated(list_images(settings, context.open_store, progress))
    with open_images(context, data, classifier, machine, weights, state) as (images, cache):
        images.skip_pass()
        prepared = prepare(data.listed, data.quarantined, images, settings.input, progress, hashes=data.hashes)
        state = receive(context, classifier, images, cache, prepared)
        examples = examples_of(context, classifier, images, cache, prepared, state)
        train_stages(context, classifier, examples, prepared, state)
        progress.event("workers.trained", run_uri=context.run.uri)
        while (found := followed.outcome()) is None:  # note: with the cache, since worker 0 may have to train again
            time.sleep(POLL_SECONDS)
            if context.peers is not None and context.peers.lost is not None and followed.outcome() is None:
                context.peers.check()
    return found


def wait_for_data(context: RunContext, followed: FollowedRun) -> Data:
    """Return the data that worker 0 saves next: as it has listed them, later as its pass has found them.

    Args:
        context: of the run.
        followed: the run.

    Raises:
        errors.PeerLostError: worker 0 has ended meanwhile.
        errors.FinetuneError: with an error that a further start would not change.
    """
    checkpoints = context.checkpoints
    assert isinstance(checkpoints, FollowedCheckpoints)
    with context.progress.phase("wait for the data", None, ""):
        while (data := checkpoints.newest_data()) is None:
            followed.outcome()
            checkpoints.check()
            time.sleep(POLL_SECONDS)
    return data


def receive(
    context: RunContext, classifier: Classifier, images: Dataset, cache: Cache, prepared: Prepared
) -> TrainingState:
    """Receive what worker 0 sends by `share`: return the state, with the weights loaded and the cache filled.

    Args:
        context: of the run.
        classifier: gets the weights.
        images: the data.
        cache: gets the features, those of augmented images, and the frozen part's outputs.
        prepared: the split.
    """
    from job.training import sharing

    replicas = context.replicas
    assert replicas is not None
    state = sharing.receive_state(replicas, classifier)
    for name, rows, slices in _shared_rows(context, images, cache, prepared):
        sharing.share_rows(replicas, rows, slices, name, context.progress)
    return state


def unshared(context: RunContext, examples: Mapping[StageName, Examples]) -> dict[StageName, Examples]:
    """Return the examples for scoring after training: where several workers train, worker 0 scores alone.

    Args:
        context: of the run.
        examples: of each stage.
    """
    if context.peers is None:
        return dict(examples)
    return {stage: dataclasses.replace(found, replicas=None) for stage, found in examples.items()}


def _shared_rows(
    context: RunContext, images: Dataset, cache: Cache, prepared: Prepared
) -> list[tuple[str, Rows, Sequence[slice]]]:
    """Return the name, the rows and the slices of them that training reads, of each part of the cache."""
    from job.training.views import Views

    shared: list[tuple[str, Rows, Sequence[slice]]] = []
    if cache.needs_features:
        shared.append(("features", cache.features, images.ranges()))
    if cache.views is not None:
        views = Views(cache, context.loaded.settings, prepared.rows_of["train"])
        shared.append(("augmented features", cache.views, [part.stored for part in views.parts()]))
    if cache.frozen is not None:
        shared.append(("frozen outputs", cache.frozen, images.ranges()))
    return shared
