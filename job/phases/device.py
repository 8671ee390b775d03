"""The phase that imports TensorFlow and configures the device, after the run's workers have met."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from job.config.settings import STAGES
from job.runtime import cluster, device

if TYPE_CHECKING:
    from job.config.settings import Settings
    from job.phases.context import RunContext
    from job.training.state import TrainingState


def configure_device(context: RunContext, state: TrainingState) -> tuple[RunContext, device.Device]:
    """Import TensorFlow, meet the run's other workers, and configure the device.

    The import takes seconds, so a published run never gets here.

    Args:
        context: of the run; in a worker other than worker 0, with the connection to it.
        state: at the start of training.

    Returns:
        The context with the workers and replicas that train together, and the device.

    Raises:
        errors.PeerLostError: TensorFlow could not connect the workers.
    """
    settings, previous, peers = context.loaded.settings, context.checkpoints.facts, context.peers

    def connect() -> int:
        """Connect the workers, and return their number. Nothing is left to train together after both stages."""
        nonlocal peers
        workers = settings.workers
        if workers.count == 1 or is_trained(settings, state):
            return workers.count
        if peers is None:
            document = {"run_id": context.run.id, "facts": previous, "state": state.document()}
            with context.progress.phase("wait for workers", None, ""):
                peers = cluster.meet(workers, settings.run.job_uid, document, context.progress)
        cluster.join(workers, peers)
        return workers.count

    device.prepare()
    machine = device.configure(settings, before=previous, notify=context.progress.event, connect=connect)
    context.progress.event("device.configured", **dataclasses.asdict(machine))
    if changes := machine.changes(previous):
        note = "the result may differ in its last bits"
        context.progress.event("device.changed", severity="warning", **changes, note=note)
    context.checkpoints.facts = machine.facts()
    context.job.gpus = len(machine.gpus) * settings.workers.count
    from job.training import strategy

    replicas = strategy.create(machine, peers, workers=settings.workers.count, index=settings.workers.index)
    return context._replace(peers=peers, replicas=replicas), machine


def is_trained(settings: Settings, state: TrainingState) -> bool:
    """Whether the epochs of both stages are over."""
    from job.training import early_stopping

    stage = STAGES[-1]
    return state.stage == stage and early_stopping.is_over(getattr(settings, stage), state.results(stage))
