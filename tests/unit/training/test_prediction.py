"""Tests of job/training/prediction.py."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from job.training import prediction

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_prefetch_keeps_the_order() -> None:
    """Batches come in their order, each once, however few there are."""
    for n in range(5):
        batches = [np.array([i]) for i in range(n)]
        assert list(range(n)) == [int(rows[0]) for rows, _ in prediction.prefetch(lambda rows: rows, batches)]


def test_prefetch_measures_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """With each batch come the seconds in which it was asked for and not there."""
    now, asked = 0.0, threading.Event()

    def monotonic() -> float:
        time = now  # note: before the other thread may move it
        asked.set()
        return time

    def load(rows: np.ndarray) -> np.ndarray:
        nonlocal now
        asked.wait()
        now += 5
        return rows

    monkeypatch.setattr(prediction, "time", SimpleNamespace(monotonic=monotonic))

    assert [5.0] == [wait for _, wait in prediction.prefetch(load, [np.array([0])])]


def test_prefetch_passes_on_errors() -> None:
    """What goes wrong while loading is raised where the batch is used."""

    def load(_: np.ndarray) -> np.ndarray:
        raise OSError(5, "gone")

    with pytest.raises(OSError, match="gone"):
        list(prediction.prefetch(load, [np.array([0])]))


def test_prefetch_takes_a_batch_when_it_is_to_be_loaded() -> None:
    """At most two batches are ahead of the one in use, so what a later one is may be decided late."""
    taken: list[int] = []

    def batches() -> Iterator[int]:
        for number in range(5):
            taken.append(number)
            yield number

    ahead = [len(taken) - used for used, _ in prediction.prefetch(lambda number: number, batches())]

    assert [3, 3, 3, 2, 1] == ahead
