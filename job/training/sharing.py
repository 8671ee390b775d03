"""What worker 0 has, and the other workers need before they train: the state, and rows of the cache.

It is sent by the collective operations that sum gradients: worker 0 adds its values to the zeros of the others. The
values are integers of 32 bits in float64, so the sum is exact.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from job.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from job.data.cache_files import Rows
    from job.model.classifier import Classifier
    from job.observability.progress import Progress
    from job.training.strategy import Replicas

WORDS = 2**20
"""Integers in one collective operation."""

SLICES = 32
"""Slices of rows that are sent together: of 32 rows, 5 MB of features."""


def broadcast(replicas: Replicas, data: bytes) -> bytes:
    """Return worker 0's bytes in every worker. Collective.

    Args:
        replicas: of all workers.
        data: of worker 0; ignored in the others.
    """
    is_sender = replicas.first == 0
    size = int(replicas.sum(np.array([len(data) if is_sender else 0]))[0])
    words = np.zeros(-(-size // 4), "<u4")
    if is_sender:
        words.view(np.uint8)[:size] = np.frombuffer(data, np.uint8)
    parts = [
        replicas.sum(words[start : start + WORDS]).astype("<u4").tobytes() for start in range(0, len(words), WORDS)
    ]
    return b"".join(parts)[:size]


def send_state(replicas: Replicas, state: TrainingState, classifier: Classifier) -> None:
    """Send the other workers the state and all weights. Collective, with `receive_state`."""
    captured = state.captured(classifier.state(), state.optimizer)
    arrays = {f"{group}/{name}": array for group, found in captured.arrays().items() for name, array in found.items()}
    document = np.frombuffer(json.dumps(captured.document()).encode(), np.uint8)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, document=document, **arrays)
    broadcast(replicas, file.getvalue())


def receive_state(replicas: Replicas, classifier: Classifier) -> TrainingState:
    """Return worker 0's state, and load its weights into the classifier. Collective, with `send_state`."""
    groups: dict[str, dict[str, NDArray[Any]]] = {}
    with np.load(io.BytesIO(broadcast(replicas, b"")), allow_pickle=False) as arrays:
        document = json.loads(arrays["document"].tobytes())
        for name in arrays.files:
            group, _, path = name.partition("/")
            if path:
                groups.setdefault(group, {})[path] = arrays[name]
    state = TrainingState.from_document(document, groups)
    classifier.load_state(state.weights)
    return state


def share_rows(replicas: Replicas, rows: Rows, slices: Sequence[slice], name: str, progress: Progress) -> None:
    """Copy rows of worker 0's cache into that of every other worker. Collective.

    Args:
        replicas: of all workers.
        rows: of this worker's cache; in worker 0 all that are copied were written.
        slices: which rows.
        name: of the rows, for the progress.
        progress: receives it.

    Raises:
        errors.UnavailableError: a row of worker 0 is damaged; or a row cannot be written.
    """
    is_sender = replicas.first == 0
    with progress.phase(f"share {name}", len(slices), "ranges") as phase:
        for start in range(0, len(slices), SLICES):
            chunk = slices[start : start + SLICES]
            numbers = np.concatenate([np.arange(part.start, part.stop) for part in chunk])
            data = broadcast(replicas, rows[numbers].tobytes() if is_sender else b"")
            if not is_sender:
                values = np.frombuffer(data, np.float32).reshape(len(numbers), -1)
                bounds = np.cumsum([0, *(part.stop - part.start for part in chunk)]).tolist()
                for part, first, last in zip(chunk, bounds, bounds[1:], strict=False):
                    rows[part] = values[first:last]
            phase.advance(len(chunk))
