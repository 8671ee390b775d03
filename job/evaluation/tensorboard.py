"""The curves of both stages as TensorBoard files.

`tf.summary.write` needs no TensorBoard: with the metadata of `tf.summary.scalar`, which does, its scalars plugin shows
them (https://github.com/tensorflow/tensorboard/blob/master/tensorboard/plugins/scalar/summary_v2.py). The steps are the
epochs, counted across both stages.

The files are written again after each epoch, from the history: so a resumed run needs nothing of the earlier one, and
an object in a bucket, to which nothing can be appended, grows. A record keeps its length, so that a TensorBoard that
has read a part of a file finds the next record where it stopped.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf

from job.config.settings import STAGES
from job.observability import log
from job.observability.progress import Clock, Event, Listener
from job.runtime import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from job.training.state import EpochResult

SCALARS = {
    "train": {
        "loss": "loss",
        "accuracy": "accuracy",
        "seconds": "seconds",
        "images_per_second": "images_per_second",
        "input_wait": "input_wait",
        "learning_rate": "learning_rate",
    },
    "validation": {"loss": "val_loss", "accuracy": "val_accuracy"},
}
"""TensorBoard's run -> tag -> field of an epoch's result. A tag of both runs is drawn in one chart."""

_PATIENCE = 3.0
"""Seconds that a process which is about to be killed waits for the last update."""

_SCALAR_CLASS = 1
"""DATA_CLASS_SCALAR of tensorflow/core/framework/summary.proto."""

_METADATA = tf.compat.v1.SummaryMetadata(
    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"), data_class=_SCALAR_CLASS
).SerializeToString()


class TensorBoardFiles(Listener):
    """Writes the files after each epoch, in a thread of its own: a slow store never delays training.

    Args:
        history: of the run; grows while it trains.
        write: stores a file: its name, below the run, and its content. Only the first failure is logged.
        interval: minimum seconds between two updates. Google's storage allows about one write a second per object.
        clock: for the interval.
    """

    def __init__(
        self,
        history: Sequence[EpochResult],
        write: Callable[[str, bytes], object],
        *,
        interval: float = 5.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._history = history
        self._write = write
        self._interval = interval
        self._clock = clock
        self._due = 0.0  # clock time; the first update is due at once
        self._changed = bool(history)
        self._closing = False
        self._failed = False
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._write_updates, name="tensorboard", daemon=True)
        self._thread.start()

    def on_event(self, event: Event) -> None:
        """Have the files written after an epoch."""
        if event.name == "epoch.finished":
            with self._condition:
                self._changed = True
                self._condition.notify()

    def close(self) -> None:
        """Write what has changed, and wait until that is done; after a signal, only for seconds."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(_PATIENCE if signals.received() else None)

    def _write_updates(self) -> None:
        while True:
            with self._condition:
                while not (self._changed and self._clock() >= self._due) and not self._closing:
                    self._condition.wait(max(0.0, self._due - self._clock()) if self._changed else None)
                if not self._changed:
                    return
                self._changed = False
                self._due = self._clock() + self._interval
            try:
                for name, data in files(list(self._history)).items():
                    self._write(name, data)
            except Exception as error:  # noqa: BLE001  # no error may stop the training
                if not self._failed:
                    log.get().warning("tensorboard.write_failed", error=error)
                self._failed = True


def files(history: Sequence[EpochResult]) -> dict[str, bytes]:
    """Return the files of a history: name -> content, a TFRecord file of tf.compat.v1.Event messages."""
    contents = {}
    for run, fields in SCALARS.items():
        with tempfile.TemporaryDirectory() as folder:
            writer = tf.summary.create_file_writer(folder)
            with writer.as_default():
                for step, result in enumerate(history, 1):
                    for tag, field in fields.items():
                        if (value := getattr(result, field)) is not None:
                            tf.summary.write(tag, tf.constant(value, tf.float32), step, _METADATA)
                    stage = STAGES.index(result.stage) + 1
                    tf.summary.write("stage", tf.constant(stage, tf.float32), step, _METADATA)
            writer.close()
            [written] = Path(folder).iterdir()
            # note: TensorBoard recognizes a file by this part of its name
            contents[f"tensorboard/{run}/events.out.tfevents.0.finetune"] = written.read_bytes()
    return contents
