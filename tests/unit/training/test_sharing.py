"""What worker 0 sends the others, with the sums of two threads in place of collective operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from worker_threads import both

from job.data.cache_files import Rows
from job.observability.progress import Progress
from job.training import sharing
from job.training.state import EpochResult, TrainingState

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


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


@pytest.mark.parametrize("sizes", [(0, 0), (1, 4), (4, 0), (0, 3), (4099, 400)])
def test_gather(sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of any length arrive as they were sent, in parts."""
    monkeypatch.setattr(sharing, "WORDS", 100)
    data = [np.random.default_rng(size).bytes(size) for size in sizes]
    received, meeting = both(lambda replicas: sharing.gather(replicas, data[replicas.process]))

    assert [data, data] == received
    words = sum(-(-size // 4) for size in sizes)
    assert 1 + -(-words // 100) == meeting.calls


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
        classifier: Any = classifiers[replicas.process]
        if replicas.process:
            return sharing.receive_state(replicas, classifier)
        return sharing.send_state(replicas, state, classifier)

    _, received = both(share)[0]
    assert state.document() == received.document()
    for group in (received.best_weights, received.optimizer, classifiers[1].weights):
        assert {name: array.tobytes() for name, array in arrays.items()} == {
            name: array.tobytes() for name, array in group.items()
        }


def test_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each slice is copied from the worker that has it to the other one, and other rows are left as they are."""
    monkeypatch.setattr(sharing, "SLICES", 2)
    values = np.random.default_rng(0).normal(size=(20, 2, 3)).astype(np.float32)
    rows = [Rows(tmp_path / str(worker), np.float32, 20, (2, 3)) for worker in (0, 1)]
    slices, owners = [slice(0, 3), slice(4, 5), slice(8, 10), slice(10, 14), slice(15, 20)], [0, 1, 1, 1, 0]
    for part, owner in zip(slices, owners, strict=True):
        rows[owner][part] = values[part]
    both(lambda replicas: sharing.share_rows(replicas, rows[replicas.process], slices, owners, "x", Progress([])))

    for part in slices:
        for copy in rows:
            np.testing.assert_array_equal(values[part], copy[np.arange(part.start, part.stop)])
    assert not any(copy.has(slice(row, row + 1)) for copy in rows for row in (3, 5, 7, 14))


class FakeImages:
    """Keeps what it is given."""

    def __init__(self, found: NDArray[Any]) -> None:
        self.found = found
        self.added: dict[int, Any] = {}

    def findings(self) -> dict[str, NDArray[Any]]:
        """Return what was found."""
        return {"usable": self.found}

    def add_findings(self, worker: int, findings: Any) -> None:
        """Keep what another worker found."""
        self.added[worker] = findings["usable"].tolist()


def test_findings() -> None:
    """Each worker gets what the other one found."""
    images: list[Any] = [FakeImages(np.array([True, False])), FakeImages(np.array([False]))]
    both(lambda replicas: sharing.share_findings(replicas, images[replicas.process]))

    assert [{1: [False]}, {0: [True, False]}] == [each.added for each in images]
