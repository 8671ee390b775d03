"""A worker other than worker 0: it meets the others, reads its share of the data, trains, and ends as the run does.

Worker 0 runs the whole pipeline.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from job.data.prepare import prepare
from job.phases.context import RunContext
from job.phases.data import list_images, open_images, read_images
from job.phases.device import configure_device
from job.phases.sharing import share_state
from job.phases.training import examples_of, train_stages
from job.phases.weights import build_classifier, warm_start
from job.runs.followed import FollowedCheckpoints, FollowedRun
from job.runs.identity import identify
from job.runs.run import Run
from job.runtime import cluster, device, imports, memory
from job.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.config.load import Loaded
    from job.observability.progress import Progress
    from job.runs.job_record import JobRecord
    from job.runs.publish import Outcome
    from job.runtime.timing import Timing
    from job.storage import OpenStore, RetryPolicy, Store

_Found = TypeVar("_Found")

POLL_SECONDS = 3.0
"""Pause between two looks at the run."""


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
            checkpoints.facts = document["facts"]
            context = RunContext(loaded, run, job, checkpoints, open_store, retry, timing, progress, peers=peers)
            found = train(context, TrainingState.from_document(document["state"], {}), followed)
            break
    run, outcome = found
    outcome.check_gate()
    progress.event("run.succeeded", message="published", run_uri=run.uri, accuracy=outcome.gate.accuracy)


@memory.exhaustion_converted()
@cluster.loss_converted()
def train(context: RunContext, state: TrainingState, followed: FollowedRun) -> tuple[Run, Outcome]:
    """Read a share of the data, and train both stages beside worker 0, from its state; return the published run.

    Args:
        context: of the run.
        state: without arrays, from the meeting.
        followed: the run.
    """
    settings, progress = context.loaded.settings, context.progress
    with context.part("import"), imports.fast():
        context, machine = configure_device(context, state)
    data = wait_for_worker_0(context, followed, FollowedCheckpoints.newest_data)
    if not settings.input.uri:  # the pictures of the demo are drawn by each worker
        data = data.relocated(list_images(settings, context.open_store, progress))
    with context.part("model"), warm_start(settings, context.open_store, state) as published:
        # note: its variables are created by all workers at once
        classifier, weights = build_classifier(context, data.listed.labels, machine, state, published)
    with open_images(context, data, classifier, machine, weights, state) as (images, cache):
        read_images(context, classifier, images, cache, state)
        hashes = data.hashes
        if data.usable is None:
            hashes = images.hashes
            wait_for_worker_0(context, followed, FollowedCheckpoints.has_new_data)  # it has accepted them
        prepared = prepare(data.listed, data.quarantined, images, settings.input, progress, hashes=hashes)
        examples = examples_of(context, classifier, images, cache, prepared, state)
        state = share_state(context, classifier, state)
        train_stages(context, classifier, examples, prepared, state)
        progress.event("workers.trained", run_uri=context.run.uri)
        while (found := followed.outcome()) is None:  # note: with the cache, since worker 0 may have to train again
            time.sleep(POLL_SECONDS)
            if context.peers is not None and context.peers.lost is not None and followed.outcome() is None:
                context.peers.check()
    return found


def wait_for_worker_0(
    context: RunContext, followed: FollowedRun, look: Callable[[FollowedCheckpoints], _Found | None]
) -> _Found:
    """Wait for what worker 0 saves, and return it.

    Args:
        context: of the run.
        followed: the run.
        look: returns it; something false as long as it is not there.

    Raises:
        errors.PeerLostError: worker 0 has ended meanwhile.
        errors.FinetuneError: with an error that a further start would not change.
    """
    checkpoints = context.checkpoints
    assert isinstance(checkpoints, FollowedCheckpoints)
    with context.progress.phase("wait for the data", None, ""):
        while not (found := look(checkpoints)):
            followed.outcome()
            context.check()
            time.sleep(POLL_SECONDS)
    return found
