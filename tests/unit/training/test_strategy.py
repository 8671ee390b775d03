"""How a batch is divided among replicas; what two of them compute is in tests/replicas."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from classifiers import examples, small_classifier
from hypothesis import given
from hypothesis import strategies as st

from job import errors
from job.config.settings import AugmentationSettings, Settings
from job.observability.progress import Progress
from job.runtime.device import Device
from job.training import strategy


@given(st.integers(1, 500), st.integers(1, 70))
def test_parts_of_a_batch(images: int, replicas: int) -> None:
    """Each image has weight in one part, the parts differ by at most one image, and none is empty."""
    parts = strategy.parts(images, replicas)

    assert replicas == len(parts)
    rows = [row for part in parts if not part.is_padding for row in range(images)[part.rows]]
    assert list(range(images)) == rows
    sizes = [len(range(images)[part.rows]) for part in parts]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


class Others:
    """The strategy of two processes, in place of TensorFlow's."""

    extended = SimpleNamespace(worker_devices=["CPU:0"])
    num_replicas_in_sync = 2


def test_wait_for_other_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that waits shows progress, ends if it has to, and raises what the collective operation fails with."""
    strategies: Any = Others()
    replicas, arrived, looks = strategy.Replicas(strategies), threading.Event(), list[Any]()
    monkeypatch.setattr(strategy, "WAIT_SECONDS", 0.001)
    monkeypatch.setattr(replicas, "sum", lambda values: arrived.wait(20) and values)

    def look() -> None:
        looks.append(1)
        if len(looks) == 3:
            arrived.set()

    replicas.wait(look, Progress())
    assert len(looks) >= 3
    arrived.clear()

    def stop() -> None:
        raise errors.StoppedError("SIGTERM", remedy="")

    with pytest.raises(errors.StoppedError):
        replicas.wait(stop, Progress())
    arrived.set()

    def fail(_: object) -> None:
        raise tf.errors.UnavailableError(None, None, "a worker has ended")

    monkeypatch.setattr(replicas, "sum", fail)
    with pytest.raises(tf.errors.UnavailableError):
        replicas.wait(int, Progress())


def test_one_device_has_no_replicas() -> None:
    """A single device has no strategy, and variables are created without a scope."""
    machine = Device(kind="cpu", name="x", cpu="x", threads=1, onednn=True, tensorflow="2.21")

    assert strategy.create(machine) is None
    with strategy.scope(None):
        pass


def test_loaded_part_holds_its_images_and_their_partners() -> None:
    """With mixup a part has the partners that were drawn in the whole batch, after its own images; they weigh nothing.

    What is drawn for an image does not depend on how the batch is divided.
    """
    settings = Settings(augmentation=AugmentationSettings(mixup=0.4, brightness=0.2))
    data = examples(small_classifier(), "fine_tuning", settings)
    rows = np.arange(8)
    pixels, drawn = data.load_for_training(rows, 3)

    part = data.load_parts(rows, 3, strategy.parts(8, 3))[1]  # images 2, 3 and 4
    (values, numbers), labels, weights = part.piece(1, 2)

    own, partners = np.array([3, 4]), drawn.partner[[3, 4]]
    assert 2 == part.start
    assert [1, 1] == weights.tolist()
    np.testing.assert_array_equal(values, pixels[[*own, *partners]])
    np.testing.assert_array_equal(labels, data.labels[rows][[*own, *partners]])
    np.testing.assert_array_equal(numbers.brightness[:2], drawn.brightness[own])
    np.testing.assert_array_equal(numbers.share[:2], drawn.share[own])
    assert [2, 3] == numbers.partner[:2].tolist()


def test_piece_behind_the_end_weighs_nothing() -> None:
    """A replica that has fewer images than another one computes an image without a weight."""
    data = examples(small_classifier(), "feature_extraction")
    [empty, only] = data.load_parts(np.arange(1), 0, strategy.parts(1, 2))
    [first, _] = data.load_parts(np.arange(3), 0, strategy.parts(3, 2))

    assert [0] == empty.piece(0, 5)[2].tolist()
    assert [1] == only.piece(0, 5)[2].tolist()
    assert [0] == first.piece(1, 1)[2].tolist()
    assert [1] == first.piece(0, 1)[2].tolist()
