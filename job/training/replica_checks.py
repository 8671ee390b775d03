"""Checks that several replicas compute what one does: a self-test of the step, and a checksum of the variables.

A device that computes wrong results, and a copy of a variable that drifts from the others, end in a worse model without
any error.
"""

from __future__ import annotations

import itertools
import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from job import errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import keras
    from numpy.typing import NDArray

    from job.training.examples import BatchPart
    from job.training.replicated_step import ReplicatedStep
    from job.training.strategy import Replicas

TOLERANCE = 1e-3
"""Relative difference of loss and gradients that the same kernels may have on two devices of one kind."""

_REMEDY = (
    "one device may be broken: run on other ones, or on a single one with device.gpus=1. If it happens there too, "
    "please report it as a bug in finetune"
)


def check_step(step: ReplicatedStep, parts: Sequence[BatchPart], images: int, dropout_seed: NDArray[Any]) -> None:
    """Let each replica compute the gradients of each part of a batch, and compare them with those of replica 0.

    The parts are those of a step, so the same kernels run in any precision. Then the gradients of a step are summed
    over the replicas, and compared with the sum that one replica has computed part by part. Nothing changes.

    Args:
        step: of the stage.
        parts: of all replicas.
        images: of the batch.
        dropout_seed: int32 [2].

    Raises:
        tf.errors.ResourceExhaustedError: a replica ran out of memory.
        errors.InvariantError: loss or gradients differ by more than `TOLERANCE`.
    """
    replicas = step.replicas
    own = slice(replicas.first, replicas.first + replicas.local)
    vectors: list[Any] = []
    expected: list[NDArray[Any]] = []

    def compute() -> NDArray[Any]:
        seen = np.zeros((replicas.total, len(parts), 2))
        vectors.clear()
        expected.clear()
        for number, part in enumerate(parts):
            gradients = step.gradients([part] * replicas.local, images, dropout_seed)
            seen[own, number, 0] = gradients.sums[:, 0]
            seen[own, number, 1] = [np.linalg.norm(vector.numpy()) for vector in gradients.vectors]
            if own.start <= number < own.stop:
                vectors.append(gradients.vectors[number - own.start])
            values = gradients.vectors[0].numpy()
            expected[:] = [expected[0] + values if expected else values]
        return seen.ravel()

    seen = replicas.agreed(compute, replicas.total * len(parts) * 2).reshape(replicas.total, len(parts), 2)
    for replica, part, quantity in itertools.product(range(replicas.total), range(len(parts)), range(2)):
        first, value = seen[0, part, quantity], seen[replica, part, quantity]
        if math.isfinite(first) and not math.isclose(first, value, rel_tol=TOLERANCE, abs_tol=1e-6):
            raise errors.InvariantError(
                f"replica {replica} of {replicas.total} computes a {('loss', 'gradient norm')[quantity]} of {value:g} "
                f"where replica 0 computes {first:g}",
                remedy=_REMEDY,
            )
    total = replicas.all_reduce(vectors)
    norm, difference = np.linalg.norm(expected[0]), np.linalg.norm(total - expected[0])
    differs = math.isfinite(norm) and not difference <= TOLERANCE * norm + 1e-6
    if replicas.sum(np.array([differs]))[0]:
        raise errors.InvariantError(
            f"the gradients summed over {replicas.total} replicas differ from those that one replica computes: by "
            f"{difference:g}, of a norm of {norm:g}",
            remedy=_REMEDY,
        )


def check_variables(replicas: Replicas, variables: Iterable[keras.Variable]) -> None:
    """Compare the copies of variables over all replicas.

    Raises:
        errors.InvariantError: a replica's bits differ from those of replica 0.
    """
    sums = np.zeros(replicas.total)
    for variable in variables:
        for number, value in enumerate(replicas.copies(variable), replicas.first):
            sums[number] = zlib.crc32(value.tobytes(), int(sums[number]))
    sums = replicas.sum(sums)
    if differing := np.flatnonzero(sums != sums[0]).tolist():
        raise errors.InvariantError(
            f"the weights or the optimizer of replicas {differing} differ from those of replica 0 "
            f"(of {replicas.total} replicas)",
            remedy=_REMEDY,
        )
