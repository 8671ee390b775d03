"""Labels of unequal frequency: the weights of their images in the loss, and the first bias of the head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from job.config.settings import ClassWeight
    from job.model.classifier import Classifier
    from job.training.examples import Examples


def class_weights(kind: ClassWeight, counts: NDArray[Any]) -> NDArray[np.float32] | None:
    """Return the weight of an image of each label, float32 [labels]; None where all images count the same.

    With n images of K labels, n_k of label k: `balanced` is n / (K n_k), as in scikit-learn, and `sqrt` is proportional
    to 1 / sqrt(n_k). The mean over the training images is 1. A label without training images has the weight 1.

    Args:
        kind: the setting `train.class_weight`.
        counts: training images of each label, int [labels].
    """
    if kind == "none":
        return None
    present = counts > 0
    weights = np.ones(len(counts))
    weights[present] = counts[present] ** (-1.0 if kind == "balanced" else -0.5)
    weights[present] *= counts.sum() / (weights[present] @ counts[present])
    return weights.astype(np.float32)


def initial_bias(counts: NDArray[Any], weights: NDArray[Any] | None) -> NDArray[np.float32]:
    """Return the bias with which a head that knows nothing else has the lowest training loss.

    Its answer for every image is the share of each label, weighted as in the loss. A label without training images
    counts as half an image: its share must not be 0.

    Args:
        counts: training images of each label, int [labels].
        weights: of `class_weights`.

    Returns:
        float32 [1] for two labels: the logit of the second one; [labels] for more.
    """
    totals = np.maximum(counts, 0.5) * (1.0 if weights is None else weights)
    logarithms = np.log(totals / totals.sum())
    bias = logarithms[1:] - logarithms[:1] if len(counts) == 2 else logarithms
    return np.asarray(bias, np.float32)


def set_initial_bias(classifier: Classifier, examples: Examples) -> None:
    """Set the bias of the output layer to the shares of the labels; see `initial_bias`."""
    counts = np.bincount(examples.labels[examples.train], minlength=len(classifier.labels))
    classifier.output.bias.assign(initial_bias(counts, examples.class_weights))
