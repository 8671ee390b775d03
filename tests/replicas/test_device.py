"""The devices of a process as replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from job.config.settings import Settings
from job.runtime import device

if TYPE_CHECKING:
    import pytest

    from job.training.strategy import Replicas


def test_each_device_is_a_replica(replicas: Replicas) -> None:
    """Work that is not spread over several devices uses one."""
    assert 2 == replicas.local == replicas.total
    assert 2 == device.configure(Settings()).replicas
    assert 1 == device.configure(Settings(), single=True).replicas


def test_sum_of_one_process(replicas: Replicas) -> None:
    """With one process the values are their own sum."""
    assert [1.0, 2.0] == replicas.sum([1, 2]).tolist()


def test_many_functions_without_a_warning(replicas: Replicas, caplog: pytest.LogCaptureFixture) -> None:
    """TensorFlow does not take the functions of the replicas for one that is traced again and again."""
    tf.get_logger().addHandler(caplog.handler)
    try:
        for number in range(12):
            add = replicas.compile(lambda x, number=number: [x + number], [tf.TensorSpec((), tf.float32)])
            assert [number, number + 1] == [float(result) for [result] in add([[0.0], [1.0]])]
    finally:
        tf.get_logger().removeHandler(caplog.handler)

    assert [] == caplog.records
