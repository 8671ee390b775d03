"""What worker 0 sends the others, with the sums of two threads in place of collective operations."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from job.data.cache_files import Rows
from job.observability.progress import Progress
from job.training import sharing
from job.training.state import EpochResult, TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


class Meeting:
    """Sums over two threads."""

    def __init__(self) -> None:
        self.calls = 0
        self._barrier = threading.Barrier(2, timeout=20)
        self._values: dict[int, NDArray[Any]] = {}

    def sum(self, first: int, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the sum of what both threads have given."""
        self._values[first] = np.asarray(values, np.float64)
        self._barrier.wait()
        total: NDArray[np.float64] = self._values[0] + self._values[1]
        if self._barrier.wait() == 0:
            self.calls += 1
        return total


class FakeReplicas:
    """The replica of one worker.

    Attributes:
        first: number of the worker.
    """

    def __init__(self, meeting: Meeting, first: int) -> None:
        self.first = first
        self._meeting = meeting

    def sum(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the sum over both."""
        return self._meeting.sum(self.first, values)


class FakeClassifier:
    """Has weights."""

    def __init__(self, weights: dict[str, NDArray[Any]]) -> None:
        self.weights = weights

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the weights."""
        return self.weights

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Set the weights."""
        self.weights = state


def both(function: Callable[[Any], Any]) -> tuple[list[Any], Meeting]:
    """Return what a function returns in each worker, and what they summed by."""
    meeting = Meeting()
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, [FakeReplicas(meeting, first) for first in (0, 1)])), meeting


@pytest.mark.parametrize("size", [0, 1, 4, 4099])
def test_broadcast(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of any length arrive as they were sent, in parts."""
    monkeypatch.setattr(sharing, "WORDS", 100)
    data = np.random.default_rng(size).bytes(size)
    received, meeting = both(lambda replicas: sharing.broadcast(replicas, b"other" if replicas.first else data))

    assert [data, data] == received
    assert 1 + -(-size // 400) == meeting.calls


def test_state() -> None:
    """The state, all groups of its arrays and the weights arrive bit by bit."""
    result = EpochResult(
        stage="feature_extraction",
        epoch=1,
        loss=0.1,
        accuracy=0.5,
        val_loss=0.2,
        val_accuracy=0.25,
        seconds=1.0,
        images_per_second=2.0,
        input_wait=0.0,
    )
    arrays = {"model/kernel": np.array([np.nan, -0.0, 1e-42], np.float32), "model/step": np.array(7)}
    state = TrainingState(epoch=1, history=[result], best=result, best_weights=arrays, optimizer=arrays)
    classifiers = [FakeClassifier(arrays), FakeClassifier({})]

    def share(replicas: Any) -> TrainingState | None:
        classifier: Any = classifiers[replicas.first]
        if replicas.first:
            return sharing.receive_state(replicas, classifier)
        return sharing.send_state(replicas, state, classifier)

    _, received = both(share)[0]
    assert state.document() == received.document()
    for group in (received.best_weights, received.optimizer, classifiers[1].weights):
        assert {name: array.tobytes() for name, array in arrays.items()} == {
            name: array.tobytes() for name, array in group.items()
        }


def test_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of rows are copied, and the others are left as they are."""
    monkeypatch.setattr(sharing, "SLICES", 2)
    values = np.random.default_rng(0).normal(size=(10, 2, 3)).astype(np.float32)
    rows = [Rows(tmp_path / str(worker), np.float32, 10, (2, 3)) for worker in (0, 1)]
    rows[0][slice(0, 10)] = values
    slices = [slice(0, 3), slice(4, 5), slice(8, 10)]
    both(lambda replicas: sharing.share_rows(replicas, rows[replicas.first], slices, "features", Progress([])))

    for part in slices:
        np.testing.assert_array_equal(values[part], rows[1][np.arange(part.start, part.stop)])
    assert not rows[1].has(slice(3, 4))
