"""The ablation: what each stage adds, from the majority's label to the published model, on the validation images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from job.config.settings import STAGES
from job.evaluation import metrics, splits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from job.config.settings import StageName


def ablation_rows(
    kept: NDArray[Any],
    labels: NDArray[Any],
    stage_ends: Mapping[StageName, NDArray[Any]],
    train_images: NDArray[Any],
    seed: int,
) -> list[dict[str, Any]]:
    """Return accuracy, balanced accuracy and log loss of each model, with intervals over the same bootstrap samples.

    Args:
        kept: the published model's probabilities, float32 [n, labels].
        labels: int [n].
        stage_ends: the probabilities of the models at the end of the stages.
        train_images: int [labels], images of each label to train on. Their shares are the majority's probabilities.
        seed: of the bootstrap.
    """
    majority = np.broadcast_to(train_images / max(1, train_images.sum()), kept.shape)
    models = {"majority": majority} | {stage: stage_ends[stage] for stage in STAGES if stage in stage_ends}
    found: dict[int, dict[str, Any]] = {}
    for probabilities in (*models.values(), kept):
        if id(probabilities) not in found:
            compared = splits.compared(probabilities, labels)
            samples = metrics.resample(probabilities, labels, seed)
            intervals = {name: splits.interval(samples[name]) for name in compared}
            found[id(probabilities)] = compared | {"intervals": intervals}
    return [{"name": name} | found[id(probabilities)] for name, probabilities in (models | {"kept": kept}).items()]
