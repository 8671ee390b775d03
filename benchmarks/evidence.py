"""What the report about single images costs, and what it finds: heatmaps, and label errors among the training images.

    python benchmarks/evidence.py

Grad-CAM against the forward pass, in turn, in one process. Then stage 1 (the features of all images, and the epochs of
the head) against the five heads that look for label errors, on pictures of which 5 % have the other label.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import folding
import harness
import numpy as np

from job.config.load import load_settings
from job.runtime import device

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from job.config.settings import Settings
    from job.model.classifier import Classifier

FLIPPED = 0.05
BATCH = 32


class Search(NamedTuple):
    """What looking for label errors took, and found.

    Attributes:
        stage_seconds: of stage 1.
        heads_seconds: of the five heads, and of what follows from their answers.
        hits: flipped labels that are suspected.
        flipped: all of them.
        suspected: all images that are suspected.
    """

    stage_seconds: float
    heads_seconds: float
    hits: int
    flipped: int
    suspected: int


def main() -> None:
    """Measure both, and count the flipped labels that are found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_inputs(parser)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--images", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    flags = ["--model.weights", options.weights, "--model.image_size", str(options.image_size)]
    settings = load_settings(flags, {}).settings
    device.prepare()
    device.configure(settings)
    with harness.pictures(options) as folder:
        pixels, labels = folding.read(folder, options)
    classifier, _ = folding.create(settings)

    ratio = explain(classifier, pixels[:BATCH], options.rounds)
    found = search(settings, classifier, pixels, labels)

    seconds = f"{found.heads_seconds:.1f} over {found.stage_seconds:.1f} s"
    harness.record(
        "Single images: heatmaps and label errors",
        ["", "measured", "reach"],
        [
            [f"Grad-CAM over the forward pass, {BATCH} images", f"{ratio}x", "<= 1.08x"],
            [
                f"five heads over stage 1, {len(labels)} images: {seconds}",
                f"{found.heads_seconds / found.stage_seconds:.2f}x",
                "<= 1x",
            ],
            [f"flipped labels that are suspected, of {found.flipped}", found.hits, "> half"],
            [f"suspected images, of {len(labels)}", found.suspected, ""],
        ],
    )


def explain(classifier: Classifier, batch: NDArray[Any], rounds: int) -> harness.Spread:
    """Return how many times longer heatmaps take than the forward pass."""
    import tensorflow as tf

    from job.evaluation import saliency

    spec = tf.TensorSpec((None, *batch.shape[1:]), tf.uint8)
    forward, explained = (
        partial(tf.function(compute, input_signature=[spec], autograph=False), batch)
        for compute in (classifier.logits, partial(saliency.gradient_maps, classifier))
    )
    times = [(folding.timed(explained), folding.timed(forward)) for _ in range(folding.WARM_UP + rounds)]
    return harness.ratio(*zip(*times[folding.WARM_UP :], strict=True))


def search(settings: Settings, classifier: Classifier, pixels: NDArray[Any], labels: NDArray[Any]) -> Search:
    """Flip labels, train stage 1 as a run does, and look for label errors."""
    import tensorflow as tf

    from job.evaluation import label_errors
    from job.observability.progress import Progress
    from job.training import cross_validation, stages
    from job.training.examples import Examples
    from job.training.state import TrainingState

    random, stage = np.random.default_rng(0), settings.feature_extraction
    flipped = random.choice(len(labels), int(FLIPPED * len(labels)), replace=False)
    labels[flipped] ^= 1
    spec = tf.TensorSpec((None, *pixels.shape[1:]), tf.uint8)
    compute = tf.function(classifier.features, input_signature=[spec], autograph=False)
    started = time.perf_counter()
    features = np.concatenate([compute(pixels[n : n + BATCH]).numpy() for n in range(0, len(pixels), BATCH)])
    examples = Examples(
        inputs=features.__getitem__,
        spec=tf.TensorSpec((None, classifier.feature_size), tf.float32),
        logits=classifier.head_logits,
        training_logits=classifier.head_logits,
        precision="float32",
        labels=labels,
        seed=settings.run.seed,
        train=np.arange(len(labels)),
        validation=np.arange(len(labels) // 4),
    )
    stages.run(
        "feature_extraction", stage, classifier, examples, TrainingState(), progress=Progress(), save=_save_nothing
    )
    stage_seconds, started = time.perf_counter() - started, time.perf_counter()
    fold = cross_validation.folds(random.integers(0, 2**63, len(labels)).astype(np.uint64))
    heads = cross_validation.FoldHeads(classifier, examples, fold)
    heads.train(stage, stage.learning_rate, Progress())
    found = label_errors.find(labels, cross_validation.has_seen_label(labels, fold), heads.predict)["position"]
    heads_seconds, hits = time.perf_counter() - started, len(set(found.tolist()) & set(flipped.tolist()))
    return Search(stage_seconds, heads_seconds, hits, len(flipped), len(found))


def _save_nothing(*_: object, **_named: object) -> None:
    """Save no checkpoint."""


if __name__ == "__main__":
    main()
