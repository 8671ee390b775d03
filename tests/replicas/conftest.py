"""Two logical CPU devices, on which two replicas train as on two GPUs.

TensorFlow takes its devices once in a process, so these tests run in a process of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from job.config.settings import Settings
from job.runtime import device

device.prepare()

import tensorflow as tf  # noqa: E402  # it reads its environment when it is imported

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
MACHINE = device.configure(Settings())

from job.training import strategy  # noqa: E402

if TYPE_CHECKING:
    from job.training.strategy import Replicas


@pytest.fixture(scope="session")
def session_replicas() -> Replicas:
    """Return the one pair of replicas: the collective operations of a second strategy would have the same keys."""
    created = strategy.create(MACHINE)
    assert created is not None
    return created


@pytest.fixture
def replicas(session_replicas: Replicas) -> Replicas:
    """Two replicas that no test has used."""
    return strategy.Replicas(session_replicas.strategy)
