"""Half precision in the training step of stage 2: the published models are as good, and what validation costs.

    python benchmarks/precision.py                     three seeds, 10 + 10 epochs
    python benchmarks/precision.py --epochs 10 3 2     of stage 2 in float32, bfloat16 and float16

Each run trains on the same 600 pictures from the same ImageNet weights. A CPU without instructions for half
precision takes minutes for an epoch, so this measures quality; `make gpu-check` measures the speed on a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import harness

PRECISIONS = ("float32", "bfloat16", "float16")


class Published(NamedTuple):
    """What one run came to.

    Attributes:
        accuracy: on the validation images, of the published model.
        difference: the largest between a probability of the exported model and the run's own.
        validation_share: of the time of the last epoch.
    """

    accuracy: float
    difference: float
    validation_share: float


def main() -> None:
    """Run every precision in turn for each seed, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_inputs(parser)
    parser.add_argument("--image_size", type=int, default=160)
    parser.add_argument("--epochs", type=int, nargs=3, default=[10, 10, 10], help="of stage 2, in each precision")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    runs: dict[str, list[Published]] = {precision: [] for precision in PRECISIONS}
    epochs = dict(zip(PRECISIONS, options.epochs, strict=True))
    with tempfile.TemporaryDirectory() as scratch, harness.pictures(options) as pictures:
        for seed in range(1, options.rounds + 1):
            for precision in PRECISIONS:
                output = Path(scratch) / f"{precision}-{seed}"
                runs[precision].append(train(options, pictures, precision, epochs[precision], seed, output))
    mean = {precision: statistics.fmean(run.accuracy for run in runs[precision]) for precision in PRECISIONS}
    rows = [
        [
            f"{precision}, 10 + {epochs[precision]} epochs",
            f"{len(runs[precision])} of {options.rounds}",
            f"{mean[precision]:.4f}",
            f"{mean[precision] - mean['float32']:+.4f}",
            f"{max(run.difference for run in runs[precision]):.1e}",
            harness.Spread.of(100 * run.validation_share for run in runs[precision]),
        ]
        for precision in PRECISIONS
    ]
    rows.append(["reach", "all", "", "within 0.03", "<= 1e-3", ""])
    header = [
        "stage 2's training step in",
        "published",
        "val_accuracy of the published models, mean",
        "difference from float32",
        "largest difference of an exported model",
        "validation (float32), percent of a stage 2 epoch",
    ]
    harness.record("Half precision in the training step", header, rows)


def train(
    options: argparse.Namespace, pictures: Path, precision: str, epochs: int, seed: int, output: Path
) -> Published:
    """Run the job once, and return what it published."""
    settings = {
        "input.uri": pictures,
        "output.uri": output,
        "model.weights": options.weights,
        "model.image_size": options.image_size,
        "run.seed": seed,
        "feature_extraction.epochs": "10",
        "fine_tuning.epochs": epochs,
        "device.mixed_precision": precision,
    }
    print(f"seed {seed}: {precision} …", file=sys.stderr, flush=True)
    harness.run([sys.executable, "-m", "job", "run", *(f"--{name}={value}" for name, value in settings.items())])
    metrics = harness.document(output, "metrics/metrics.json")
    share = harness.validation_share(output)
    assert share is not None, "the run was not interrupted"
    return Published(metrics["validation"]["accuracy"], metrics["verification"]["max_difference"], share)


if __name__ == "__main__":
    main()
