"""Converts an exported model to another format and scores encoded images with the result, in a separate process.

The arguments are the format and a time limit in seconds, for loading, for the conversion and for each image: SIGALRM
ends a process that exceeds it.

Standard input is one line of JSON: the model's folder, the path of the new file, and the number of images for
calibration. These images follow, then those to score, each as its length (4 bytes, little endian) and its bytes.
Standard output is an .npz file: ``probabilities``, float32 [n, labels], and ``seconds``, those of the conversion. After
an error the exit code is EX_SOFTWARE, and standard output one line about it; EX_OSERR if the process ran out of memory.
"""

from __future__ import annotations

import gc
import importlib
import io
import itertools
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

gc.disable()  # imports create no garbage, and collection makes them 20 % slower; this process is short-lived

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from job.data import decode  # noqa: E402
from job.export.scorer import read_images, time_limit  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping

    from job.config.settings import ExportFormat


class Format(NamedTuple):
    """How a format is converted.

    Attributes:
        module: has ``Model``, and the function.
        function: converts.
    """

    module: str
    function: str


FORMATS: Final[Mapping[ExportFormat, Format]] = {
    "tflite": Format("job.export.tflite", "convert"),
    "tflite_int8": Format("job.export.tflite", "convert_int8"),
    "onnx": Format("job.export.onnx", "convert"),
}


def main() -> bytes:
    """Convert, and return what standard output receives; empty if there is nothing to do."""
    name, seconds = sys.argv[1], int(sys.argv[2])
    if not (line := sys.stdin.buffer.readline()):
        return b""  # the parent process closed the pipe
    header, images = json.loads(line), read_images()
    with time_limit(seconds):
        module = importlib.import_module(FORMATS[name].module)  # type: ignore[index] # from the command line
        served = tf.saved_model.load(str(Path(header["folder"]) / "saved_model"))
    size = served.classify.concrete_functions[0].structured_input_signature[0][0].shape[1]
    calibration = [
        decode.resize(served.decode(image)[None], size)[0].numpy()
        for image in itertools.islice(images, header["calibration"])
    ]
    started = time.monotonic()
    with time_limit(seconds):
        content = getattr(module, FORMATS[name].function)(served, calibration)  # type: ignore[index]
    elapsed = time.monotonic() - started
    Path(header["file"]).write_bytes(content)
    with time_limit(seconds):
        model = module.Model(content)
    probabilities: list[Any] = []
    for image in images:
        with time_limit(seconds):
            probabilities.append(model.probabilities(served.decode(image)))
    arrays = io.BytesIO()
    np.savez(arrays, probabilities=np.stack(probabilities), seconds=elapsed)
    return arrays.getvalue()


if __name__ == "__main__":
    output = os.dup(1)
    os.dup2(2, 1)  # redirect what libraries print to standard error
    code = 0
    try:
        answer = main()
    except (MemoryError, tf.errors.ResourceExhaustedError):
        traceback.print_exc()
        sys.exit(os.EX_OSERR)
    except Exception as error:  # noqa: BLE001  # reported by the parent process
        code, answer = os.EX_SOFTWARE, f"{type(error).__name__}: {error}".partition("\n")[0].encode()
    with os.fdopen(output, "wb") as file:
        file.write(answer)
    sys.exit(code)
