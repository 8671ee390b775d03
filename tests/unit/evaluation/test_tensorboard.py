"""The TensorBoard files, read back as TensorBoard reads them."""

from __future__ import annotations

import dataclasses
import struct
import threading
from typing import TYPE_CHECKING

import pytest
import tensorflow as tf
from structlog.testing import capture_logs

from job.evaluation import tensorboard
from job.evaluation.tensorboard import TensorBoardFiles
from job.observability.progress import Event
from job.training.state import EpochResult

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TRAIN, VALIDATION = (f"tensorboard/{run}/events.out.tfevents.0.finetune" for run in ("train", "validation"))


def result(stage: str, epoch: int) -> EpochResult:
    """Return an epoch's result with figures that tell which it is."""
    figures = {name: epoch + n / 8 for n, name in enumerate(("loss", "accuracy", "val_loss", "val_accuracy"))}
    return EpochResult(stage=stage, epoch=epoch, seconds=1.5, images_per_second=10.0, input_wait=0.25, **figures)


HISTORY = [result("feature_extraction", 1), result("feature_extraction", 2), result("fine_tuning", 1)]
EPOCH = Event("epoch.finished", "info", {}, None)


def events(data: bytes, folder: Path) -> list[tf.compat.v1.Event]:
    """Read a file's messages."""
    (folder / "file").write_bytes(data)
    return [tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(folder / "file"))]


def scalars(data: bytes, folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return tag -> (step, value) of each scalar of a file."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events(data, folder)[1:]:
        [value] = event.summary.value
        found.setdefault(value.tag, []).append((event.step, float(tf.make_ndarray(value.tensor))))
    return found


def test_scalars_of_both_stages(tmp_path: Path) -> None:
    """Each run of TensorBoard has its scalars over one axis of steps, the epochs across both stages."""
    files = tensorboard.files(HISTORY)

    assert [TRAIN, VALIDATION] == list(files)
    train, validation = (scalars(data, tmp_path) for data in files.values())
    assert {"loss", "accuracy", "seconds", "images_per_second", "input_wait", "stage"} == set(train)
    assert [(1, 1.0), (2, 2.0), (3, 1.0)] == train["loss"]
    assert [(1, 1.375), (2, 2.375), (3, 1.375)] == validation["accuracy"]
    assert [(1, 1.0), (2, 1.0), (3, 2.0)] == train["stage"] == validation["stage"]


def test_learning_rate(tmp_path: Path) -> None:
    """The learning rate is a scalar where it is known: not in epochs of older versions."""
    known = dataclasses.replace(HISTORY[1], learning_rate=0.5)
    train = scalars(tensorboard.files([HISTORY[0], known])[TRAIN], tmp_path)

    assert [(2, 0.5)] == train["learning_rate"]


def test_metadata(tmp_path: Path) -> None:
    """A file begins with its version, and each value is a scalar of TensorBoard's scalars plugin, in float32."""
    first, *values = events(tensorboard.files(HISTORY)[VALIDATION], tmp_path)

    assert "brain.Event:2" == first.file_version
    for event in values:
        [value] = event.summary.value
        assert "scalars" == value.metadata.plugin_data.plugin_name
        assert b"" == value.metadata.plugin_data.content
        assert (1, tf.float32.as_datatype_enum) == (value.metadata.data_class, value.tensor.dtype)


def record_lengths(data: bytes) -> list[int]:
    """Return the length of each record: 8 bytes, with a checksum of 4 before the record and one after it."""
    lengths, start = [], 0
    while start < len(data):
        [length] = struct.unpack_from("<Q", data, start)
        lengths.append(length)
        start += 8 + 4 + length + 4
    return lengths


def test_records_keep_their_place() -> None:
    """A reader that has read the file of a shorter history finds the next record of the longer one at its end."""
    for name, data in tensorboard.files(HISTORY[:2]).items():
        assert record_lengths(data) == record_lengths(tensorboard.files(HISTORY)[name])[: len(record_lengths(data))]


class Store:
    """Remembers what is written, and waits in a write while it is held."""

    def __init__(self, error: Exception | None = None) -> None:
        self.written: list[dict[str, bytes]] = []
        self.free = threading.Event()
        self.entered = threading.Semaphore(0)
        self._error = error

    def __call__(self, name: str, data: bytes) -> None:
        """Write a file."""
        self.entered.release()
        self.free.wait()
        if self._error:
            raise self._error
        if name == TRAIN:
            self.written.append({})
        self.written[-1][name] = data


def losses(written: Mapping[str, bytes], folder: Path) -> list[float]:
    """Return the losses of an update."""
    return [value for _, value in scalars(written[TRAIN], folder)["loss"]]


def test_updates_are_coalesced(tmp_path: Path) -> None:
    """An epoch never waits for the store; epochs that end within the interval are one update."""
    store, history = Store(), [HISTORY[0]]
    files = TensorBoardFiles(history, store, interval=1000.0)
    store.entered.acquire()  # the update of the first epoch is being written
    for later in HISTORY[1:]:
        history.append(later)
        files.on_event(EPOCH)
    store.free.set()
    files.close()

    assert [[1.0], [1.0, 2.0, 1.0]] == [losses(update, tmp_path) for update in store.written]
    assert [{TRAIN, VALIDATION}] * 2 == [set(update) for update in store.written]


def test_nothing_new(tmp_path: Path) -> None:
    """A run without an epoch has no files; a resumed one without a new epoch has those of its history, once."""
    empty, resumed = Store(), Store()
    for store in (empty, resumed):
        store.free.set()
    TensorBoardFiles([], empty).close()
    TensorBoardFiles(HISTORY, resumed).close()

    assert [] == empty.written
    assert [[1.0, 2.0, 1.0]] == [losses(update, tmp_path) for update in resumed.written]


@pytest.mark.parametrize("name", ["stage.started", "step.taken"])
def test_other_events(name: str) -> None:
    """Only the end of an epoch is written."""
    store = Store()
    store.free.set()
    files = TensorBoardFiles([], store)
    files.on_event(Event(name, "info", {}, None))
    files.close()

    assert [] == store.written


def test_failed_updates_are_logged_once() -> None:
    """A store that fails costs the files, not the training; it is logged once."""
    store = Store(OSError("no space"))
    store.free.set()
    with capture_logs() as logs:
        files = TensorBoardFiles(HISTORY, store, interval=0.0)
        store.entered.acquire()
        files.on_event(EPOCH)
        store.entered.acquire()
        files.close()

    assert ["tensorboard.write_failed"] == [line["event"] for line in logs]
