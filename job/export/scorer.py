"""Scores encoded images with an exported model in a separate process, which proves that the model loads.

The arguments are the batch size, the number of images to score with ``model.keras``, too (0: it is not loaded), and a
time limit in seconds, for loading the models and for each batch: SIGALRM ends a process that exceeds it. The exit code
is EX_OSERR if the process runs out of memory.

Standard input is one line with the model's folder as a JSON string, then each image as its length (4 bytes, little
endian) and its bytes. Standard output is an .npz file with the probabilities: ``saved_model``, float32 [n, labels], and
``keras``, float32 [m, labels], [m, 1] for two labels, or empty. Nothing of the job is imported, as in the processes
that will serve the model. Standard input is read after the import of TensorFlow, so the process can start before the
model exists. Images are streamed, so memory does not limit their number.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

# note: as job/runtime/imports.py does, of which this process imports nothing
gc.disable()
sys.modules |= dict.fromkeys(("matplotlib", "scipy", "sklearn"))  # type: ignore[arg-type]

import keras  # noqa: E402
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
    folder, (batch_size, keras_images, seconds) = Path(json.loads(line)), map(int, sys.argv[1:])
    with time_limit(seconds):
        served = tf.saved_model.load(str(folder / "saved_model"))
        if keras_images:
            # traced once, for images of any size
            pixels = tf.TensorSpec((None, None, None, 3), tf.uint8)
            score_pixels = tf.function(keras.models.load_model(folder / "model.keras"), input_signature=[pixels])
    serve_bytes = served.signatures["serve_bytes"]
    images, by_saved_model = read_images(), []
    by_keras: list[Any] = []
    while batch := list(itertools.islice(images, batch_size)):
        with time_limit(seconds):
            by_saved_model.append(serve_bytes(image_bytes=tf.constant(batch))["probabilities"].numpy())
            first = batch[: keras_images - len(by_keras)]
            by_keras += [score_pixels(served.decode(image)[None]).numpy() for image in first]
    arrays = io.BytesIO()
    np.savez(arrays, saved_model=np.concatenate(by_saved_model), keras=np.concatenate(by_keras or [[]]))
    with os.fdopen(output, "wb") as file:
        file.write(arrays.getvalue())


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
