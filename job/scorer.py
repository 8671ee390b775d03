"""Scores encoded images with an exported SavedModel, in a process of its own: the proof that it can be loaded.

    python -m job.scorer SAVED_MODEL IMAGES.npz PROBABILITIES.npy

IMAGES.npz holds `data`, uint8, all images' bytes one after the other, and `lengths`, int64 [n]. PROBABILITIES.npy is
written: float32 [n, labels]. Nothing of the job is imported, as in the processes that will serve the model.
"""

from __future__ import annotations

import sys

import numpy as np
import tensorflow as tf

BATCH = 32


def main() -> None:
    """Score the images."""
    saved_model, images, answers = sys.argv[1:]
    signature = tf.saved_model.load(saved_model).signatures["serve_bytes"]
    with np.load(images, allow_pickle=False) as arrays:
        data, ends = arrays["data"].tobytes(), np.cumsum(arrays["lengths"]).tolist()
    encoded = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    batches = [encoded[start : start + BATCH] for start in range(0, len(encoded), BATCH)]
    scored = [signature(image_bytes=tf.constant(batch))["probabilities"].numpy() for batch in batches]
    np.save(answers, np.concatenate(scored), allow_pickle=False)


if __name__ == "__main__":
    main()
