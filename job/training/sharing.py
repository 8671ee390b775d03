"""What the workers of a run send each other before they train: the state, what the pass found, and rows of the cache.

It is sent by the collective operations that sum gradients: each adds its values to the zeros of the others. The values
are integers of 32 bits in float64, so the sum is exact.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from job.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from job.data.cache_files import Rows
    from job.data.dataset import Dataset
    from job.model.classifier import Classifier
    from job.observability.progress import Progress
    from job.training.strategy import Replicas

WORDS = 2**20
"""Integers in one collective operation."""

SLICES = 32
"""Slices of rows that are sent together: of 32 rows, 5 MB of features."""


def gather(replicas: Replicas, data: bytes) -> list[bytes]:
    """Return the bytes of each worker, in every worker. Collective.

    Args:
        replicas: of all workers.
        data: of this worker, of any length.
    """
    sizes = np.zeros(replicas.processes)
    sizes[replicas.process] = len(data)
    sizes = replicas.sum(sizes).astype(np.int64)
    bounds = [0, *np.cumsum(-(-sizes // 4)).tolist()]  # in words
    words = np.zeros(bounds[-1], "<u4")
    words[bounds[replicas.process] :].view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
    summed = [replicas.sum(words[start : start + WORDS]).astype("<u4") for start in range(0, len(words), WORDS)]
    total = np.concatenate([words[:0], *summed])
    return [total[start:].view(np.uint8)[:size].tobytes() for start, size in zip(bounds, sizes.tolist(), strict=False)]


def send_state(replicas: Replicas, state: TrainingState, classifier: Classifier) -> None:
    """Send the other workers the state and all weights. Collective, with `receive_state`."""
    captured = state.captured(classifier.state(), state.optimizer)
    arrays = {f"{group}/{name}": array for group, found in captured.arrays().items() for name, array in found.items()}
    document = np.frombuffer(json.dumps(captured.document()).encode(), np.uint8)
    gather(replicas, _packed({"document": document, **arrays}))


def receive_state(replicas: Replicas, classifier: Classifier) -> TrainingState:
    """Return worker 0's state, and load its weights into the classifier. Collective, with `send_state`."""
    groups: dict[str, dict[str, NDArray[Any]]] = {}
    arrays = _unpacked(gather(replicas, b"")[0])
    document = json.loads(arrays.pop("document").tobytes())
    for name, array in arrays.items():
        group, _, path = name.partition("/")
        groups.setdefault(group, {})[path] = array
    state = TrainingState.from_document(document, groups)
    classifier.load_state(state.weights)
    return state


def share_findings(replicas: Replicas, images: Dataset) -> None:
    """Send each worker what the passes of all have found. Collective.

    Args:
        replicas: of all workers.
        images: the data, after the pass over the own share.
    """
    for worker, data in enumerate(gather(replicas, _packed(images.findings()))):
        if worker != replicas.process:
            images.add_findings(worker, _unpacked(data))


def share_rows(
    replicas: Replicas, rows: Rows, slices: Sequence[slice], owners: Sequence[int], name: str, progress: Progress
) -> None:
    """Copy rows of each worker's cache into those of all others. Collective.

    Args:
        replicas: of all workers.
        rows: of this worker's cache; the own ones were written.
        slices: which rows; the same in all workers.
        owners: of each slice, the number of the worker that has written it.
        name: of the rows, for the progress.
        progress: receives it.

    Raises:
        errors.UnavailableError: an own row is damaged; or a row cannot be written.
    """
    with progress.phase(f"share {name}", len(slices), "ranges") as phase:
        for start in range(0, len(slices), SLICES):
            chunk = list(zip(slices[start : start + SLICES], owners[start : start + SLICES], strict=True))
            slices_of = [[part for part, owner in chunk if owner == worker] for worker in range(replicas.processes)]
            own = b"".join(rows[np.arange(part.start, part.stop)].tobytes() for part in slices_of[replicas.process])
            for worker, data in enumerate(gather(replicas, own)):
                if worker == replicas.process:
                    continue
                lengths = [part.stop - part.start for part in slices_of[worker]]
                values = np.frombuffer(data, np.float32)
                ends = np.cumsum(lengths) * (len(values) // max(1, sum(lengths)))
                for part, of_part in zip(slices_of[worker], np.split(values, ends), strict=False):
                    rows[part] = of_part
            phase.advance(len(chunk))


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _unpacked(data: bytes) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)
