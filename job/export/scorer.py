"""Scores encoded images with an exported SavedModel, in a process of its own: the proof that it can be loaded.

Its argument is the number of images in a batch. Standard input is the SavedModel's folder as a JSON string on a line of
its own, then each image as its length (4 bytes, little endian) and its bytes. Standard output is an .npy file: the
probabilities, float32 [n, labels]. Nothing of the job is imported, as in the processes that will serve the model. The
folder is read when TensorFlow is imported, so that this process can be started before there is a model; and images one
by one, so that their number does not matter.
"""

from __future__ import annotations

import gc
import io
import itertools
import json
import os
import sys
from typing import TYPE_CHECKING

gc.disable()  # there is nothing to collect in an import, and it would take a fifth more time; this process ends soon

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator


def main() -> None:
    """Score the images that standard input brings."""
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    if not (line := sys.stdin.buffer.readline()):
        return  # whoever started this process has nothing to ask
    signature = tf.saved_model.load(json.loads(line)).signatures["serve_bytes"]
    images, scored, batch_size = read_images(), [], int(sys.argv[1])
    while batch := list(itertools.islice(images, batch_size)):
        scored.append(signature(image_bytes=tf.constant(batch))["probabilities"].numpy())
    array = io.BytesIO()
    np.save(array, np.concatenate(scored), allow_pickle=False)
    with os.fdopen(answers, "wb") as file:
        file.write(array.getvalue())


def read_images() -> Iterator[bytes]:
    """Yield the images until there are no more."""
    while length := sys.stdin.buffer.read(4):
        yield sys.stdin.buffer.read(int.from_bytes(length, "little"))


if __name__ == "__main__":
    main()
