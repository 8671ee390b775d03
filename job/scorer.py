"""Scores encoded images with an exported SavedModel, in a process of its own: the proof that it can be loaded.

    echo '["SAVED_MODEL", "IMAGES.npz", "PROBABILITIES.npy"]' | python -m job.scorer

IMAGES.npz holds `data`, uint8, all images' bytes one after the other, and `lengths`, int64 [n]. PROBABILITIES.npy is
written: float32 [n, labels]. Nothing of the job is imported, as in the processes that will serve the model. The paths
are read when TensorFlow is imported, so that this process can be started before there is a model.
"""

from __future__ import annotations

import gc
import json
import sys

gc.disable()  # there is nothing to collect in an import, and it would take a fifth more time; this process ends soon

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

BATCH = 32


def main() -> None:
    """Score the images that standard input names."""
    if not (line := sys.stdin.readline()):
        return  # whoever started this process has nothing to ask
    saved_model, images, answers = json.loads(line)
    signature = tf.saved_model.load(saved_model).signatures["serve_bytes"]
    with np.load(images, allow_pickle=False) as arrays:
        data, ends = arrays["data"].tobytes(), np.cumsum(arrays["lengths"]).tolist()
    encoded = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    batches = [encoded[start : start + BATCH] for start in range(0, len(encoded), BATCH)]
    scored = [signature(image_bytes=tf.constant(batch))["probabilities"].numpy() for batch in batches]
    np.save(answers, np.concatenate(scored), allow_pickle=False)


if __name__ == "__main__":
    main()
