"""The devices of a process as replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from job.config.settings import Settings
from job.runtime import device

if TYPE_CHECKING:
    from job.training.strategy import Replicas


def test_each_device_is_a_replica(replicas: Replicas) -> None:
    """Work that is not spread over several devices uses one."""
    assert 2 == replicas.local == replicas.total
    assert 2 == device.configure(Settings()).replicas
    assert 1 == device.configure(Settings(), single=True).replicas


def test_sum_of_one_process(replicas: Replicas) -> None:
    """With one process the values are their own sum."""
    assert [1.0, 2.0] == replicas.sum([1, 2]).tolist()
