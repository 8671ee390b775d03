"""What the workers of a run send each other before they train. Without several workers, none of this does anything.

The functions are collective: all workers call them in the same order, and the first one to arrive waits.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from job.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from job.config.settings import StageName
    from job.data.cache import Cache
    from job.data.dataset import Dataset
    from job.model.classifier import Classifier
    from job.phases.context import RunContext
    from job.training.examples import Examples
    from job.training.state import TrainingState
    from job.training.views import Views


def check_same_weights(context: RunContext, digest: str) -> None:
    """Check that all workers start from the same weights: each computes features from its own.

    Args:
        context: of the run.
        digest: of the base model's weights.

    Raises:
        errors.SettingsError: they differ.
    """
    if (replicas := context.workers) is None:
        return
    from job.training import sharing

    context.wait_for_workers()
    found = [data.decode() for data in sharing.gather(replicas, digest.encode())]
    for worker, other in enumerate(found):
        if other != found[0]:
            raise SettingsError(
                f"worker {worker} starts from weights of digest {other}, and worker 0 from weights of {found[0]}",
                remedy="give all workers the same file as model.weights, and the same model.weights_dir",
            )


def share_pass(context: RunContext, images: Dataset, cache: Cache) -> None:
    """Send all workers what the passes over their shares found and computed.

    Args:
        context: of the run.
        images: the data, after the pass over the own share.
        cache: has what was computed of the own share.
    """
    if (replicas := context.workers) is None:
        return
    from job.training import sharing

    context.wait_for_workers()
    sharing.share_findings(replicas, images)
    share_features(context, images, cache)


def share_features(context: RunContext, images: Dataset, cache: Cache) -> None:
    """Send all workers the features and frozen outputs that each has computed.

    Args:
        context: of the run.
        images: the data, after the passes of all.
        cache: has what was computed of the own share.
    """
    if (replicas := context.workers) is None:
        return
    from job.training import sharing

    slices = images.ranges()
    owners = [images.share.owner(rows.start) for rows in slices]
    computed = {"features": cache.features if cache.needs_features else None, "frozen outputs": cache.frozen}
    for name, rows in computed.items():
        if rows is not None:
            sharing.share_rows(replicas, rows, slices, owners, name, context.progress)


def share_views(context: RunContext, views: Views) -> None:
    """Send all workers the features of augmented images that each has computed.

    Args:
        context: of the run.
        views: after `extract_views`.
    """
    if (replicas := context.workers) is None:
        return
    from job.training import sharing

    parts = views.parts()
    slices, owners = [part.stored for part in parts], [part.position % replicas.processes for part in parts]
    sharing.share_rows(replicas, views.stored, slices, owners, "augmented features", context.progress)


def share_state(context: RunContext, classifier: Classifier, state: TrainingState) -> TrainingState:
    """Send all workers the state and the weights of worker 0; return its state.

    Args:
        context: of the run.
        classifier: at the start of training; gets the weights in the other workers.
        state: of worker 0, at the start of training.
    """
    if (replicas := context.workers) is None:
        return state
    from job.training import sharing

    context.wait_for_workers()
    if replicas.process:
        return sharing.receive_state(replicas, classifier)
    sharing.send_state(replicas, state, classifier)
    return state


def unshared(context: RunContext, examples: Mapping[StageName, Examples]) -> dict[StageName, Examples]:
    """Return the examples for scoring after training: where several workers train, worker 0 scores alone.

    Args:
        context: of the run.
        examples: of each stage.
    """
    if context.workers is None:
        return dict(examples)
    return {stage: dataclasses.replace(found, replicas=None) for stage, found in examples.items()}
