"""Scores encoded images with an exported SavedModel in a separate process, which proves that the model loads.

The arguments are the batch size and a time limit in seconds, for loading the model and for each batch: SIGALRM ends a
process that exceeds it. The exit code is EX_OSERR if the process runs out of memory.

Standard input is one line with the SavedModel's folder as a JSON string, then each image as its length (4 bytes, little
endian) and its bytes. Standard output is an .npy file with the probabilities, float32 [n, labels]. Nothing of the job
is imported, as in the processes that will serve the model. Standard input is read after the import of TensorFlow, so
the process can start before the model exists. Images are streamed, so memory does not limit their number.
"""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import json
import os
import signal
import sys
import traceback
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
    batch_size, seconds = map(int, sys.argv[1:])
    with time_limit(seconds):
        signature = tf.saved_model.load(json.loads(line)).signatures["serve_bytes"]
    images, probabilities = read_images(), []
    while batch := list(itertools.islice(images, batch_size)):
        with time_limit(seconds):
            probabilities.append(signature(image_bytes=tf.constant(batch))["probabilities"].numpy())
    array = io.BytesIO()
    np.save(array, np.concatenate(probabilities), allow_pickle=False)
    with os.fdopen(output, "wb") as file:
        file.write(array.getvalue())


def read_images() -> Iterator[bytes]:
    """Yield the images until the end of standard input."""
    while length := sys.stdin.buffer.read(4):
        yield sys.stdin.buffer.read(int.from_bytes(length, "little"))


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """End this process by SIGALRM if the block takes longer. Its default action works inside TensorFlow as well."""
    signal.alarm(seconds)
    yield
    signal.alarm(0)


if __name__ == "__main__":
    try:
        main()
    except (MemoryError, tf.errors.ResourceExhaustedError):
        traceback.print_exc()
        sys.exit(os.EX_OSERR)
