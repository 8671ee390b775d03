"""Scores encoded images with an exported SavedModel in a separate process, which proves that the model loads.

The argument is the batch size. Standard input is one line with the SavedModel's folder as a JSON string, then each
image as its length (4 bytes, little endian) and its bytes. Standard output is an .npy file with the probabilities,
float32 [n, labels]. Nothing of the job is imported, as in the processes that will serve the model. Standard input is
read after the import of TensorFlow, so the process can start before the model exists. Images are streamed, so memory
does not limit their number.
"""

from __future__ import annotations

import gc
import io
import itertools
import json
import os
import sys
from typing import TYPE_CHECKING

gc.disable()  # imports create no garbage, and collection makes them 20 % slower; this process is short-lived

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator


def main() -> None:
    """Score the images on standard input."""
    output = os.dup(1)
    os.dup2(2, 1)  # redirect what libraries print to standard error
    if not (line := sys.stdin.buffer.readline()):
        return  # the parent process closed the pipe: nothing to score
    signature = tf.saved_model.load(json.loads(line)).signatures["serve_bytes"]
    images, probabilities, batch_size = read_images(), [], int(sys.argv[1])
    while batch := list(itertools.islice(images, batch_size)):
        probabilities.append(signature(image_bytes=tf.constant(batch))["probabilities"].numpy())
    array = io.BytesIO()
    np.save(array, np.concatenate(probabilities), allow_pickle=False)
    with os.fdopen(output, "wb") as file:
        file.write(array.getvalue())


def read_images() -> Iterator[bytes]:
    """Yield the images until the end of standard input."""
    while length := sys.stdin.buffer.read(4):
        yield sys.stdin.buffer.read(int.from_bytes(length, "little"))


if __name__ == "__main__":
    main()
