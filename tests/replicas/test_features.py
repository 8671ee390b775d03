"""The feature pass on two replicas."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from classifiers import small_classifier

from job.data.dataset import RANGE
from job.observability.progress import Progress
from job.training import strategy
from job.training.features import FeaturePass
from job.training.state import TrainingState

if TYPE_CHECKING:
    import pytest

    from job.training.strategy import Replicas


def features(replicas: Replicas | None, ranges: list[np.ndarray[Any, Any]], state: TrainingState) -> list[Any]:
    """Return the features of ranges, computed as the pass does."""
    with strategy.scope(replicas):
        classifier = small_classifier()
    cache: Any = SimpleNamespace(frozen=None, needs_features=True, clear_features=lambda _: None)
    compute = FeaturePass(classifier, cache, state, Progress(), replicas=replicas)
    found = [values for group in compute.groups(ranges) for [values] in compute([[pixels] for pixels in group])]
    assert len(ranges) == len(compute.seconds)
    return found


def test_features_have_the_bits_of_one_device(replicas: Replicas) -> None:
    """Each range is computed whole on a replica, so its bits do not depend on how many there are."""
    random = np.random.default_rng(0)
    ranges = [random.integers(0, 256, (RANGE, 32, 32, 3)).astype(np.uint8) for _ in range(3)]

    expected, seen = (features(chosen, ranges, TrainingState()) for chosen in (None, replicas))

    assert [values.tobytes() for values in expected] == [values.tobytes() for values in seen]


def test_features_that_do_not_fit(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a range does not fit on one replica, all of them compute smaller batches."""
    compiled = FeaturePass._compile

    def for_a_small_device(self: FeaturePass, batch_size: int) -> Any:
        if batch_size == RANGE:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return compiled(self, batch_size)

    ranges, state = [np.full((RANGE, 32, 32, 3), shade, np.uint8) for shade in (10, 200)], TrainingState()
    expected = features(None, ranges, TrainingState())
    monkeypatch.setattr(FeaturePass, "_compile", for_a_small_device)
    seen = features(replicas, ranges, state)

    assert RANGE // 2 == state.feature_batch
    np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-5)
