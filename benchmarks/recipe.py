"""The job against the plain Keras script: the same validation curve, in less time.

    python benchmarks/recipe.py                       three seeds, 10 + 10 epochs; some 25 minutes on two cores
    python benchmarks/recipe.py --epochs 10 2 --onednn 0

Both train on the same 600 pictures with the same split, from the same ImageNet weights, each in a process of its own,
in turn. `--onednn 0` gives the peer what TensorFlow chooses on CPUs where it leaves oneDNN off; without it the peer has
TensorFlow's choice for this one. The job always has its own defaults.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import harness

SHARED = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"


def main() -> None:
    """Run both in turn for each seed, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data/cats_dogs_small", help="train/ and validation/")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights" / WEIGHTS)
    parser.add_argument("--image_size", type=int, default=160)
    parser.add_argument("--epochs", type=int, nargs=2, default=[10, 10])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--onednn", choices=["0", "1"], help="for the peer; TensorFlow's own choice by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rounds = [compare(options, seed, Path(scratch)) for seed in range(1, options.rounds + 1)]
    peer = {None: "TensorFlow's own defaults", "0": "oneDNN off", "1": "oneDNN on"}[options.onednn]
    stage_1, stage_2 = options.epochs
    title = f"The recipe, {stage_1} + {stage_2} epochs, against plain Keras ({peer})"
    ratios = {
        f"stage 1, seconds: {stage_1} epochs (the job: the pass over the data counted)": "stage_1",
        "stage 2, seconds: the last epoch with validation": "stage_2_epoch",
        "whole process, seconds: import to exit (the job: export, check and publishing counted)": "process",
    }
    rows: list[list[object]] = [
        [
            name,
            harness.Spread.of(plain[key] for plain, _ in rounds),
            harness.Spread.of(job[key] for _, job in rounds),
            f"{harness.ratio([plain[key] for plain, _ in rounds], [job[key] for _, job in rounds])}x",
        ]
        for name, key in ratios.items()
    ]
    for name, pick in (
        ("val_accuracy, mean over all epochs", statistics.fmean),
        ("val_accuracy, last epoch", lambda curve: curve[-1]),
    ):
        plains, jobs = [pick(plain["curve"]) for plain, _ in rounds], [pick(job["curve"]) for _, job in rounds]
        difference = abs(statistics.fmean(plains) - statistics.fmean(jobs))
        means = f"difference of the means {difference:.4f}"
        rows.append([name, harness.Spread.of(plains), harness.Spread.of(jobs), means])
    harness.record(title, ["", "plain Keras", "the job", "ratio"], rows)


def compare(options: argparse.Namespace, seed: int, scratch: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run both once, and return what is compared of each."""
    history, output = scratch / f"{seed}.json", scratch / f"job-{seed}"
    size, (stage_1, stage_2) = str(options.image_size), map(str, options.epochs)
    plain = [sys.executable, Path(__file__).parent / "plain_keras.py", "--data", options.data, "--json", history]
    plain += ["--weights", options.weights, "--image_size", size, "--epochs", stage_1, stage_2, "--seed", str(seed)]
    job = [sys.executable, "-m", "job", "run", "--input.uri", options.data, "--output.uri", output]
    job += ["--model.weights", options.weights, "--model.image_size", size, "--run.seed", str(seed)]
    job += ["--feature_extraction.epochs", stage_1, "--fine_tuning.epochs", stage_2]
    peer = {"TF_ENABLE_ONEDNN_OPTS": options.onednn} if options.onednn else {}
    runs = harness.alternate({"plain": plain, "job": job}, rounds=1, environments={"plain": peer})

    theirs = json.loads(history.read_text())
    [folder] = (output / "runs").iterdir()
    timing = json.loads((folder / "metrics/metrics.json").read_text())["timing"]
    ours = list(csv.DictReader((folder / "metrics/history.csv").read_text().splitlines()))
    return (
        {
            "stage_1": theirs["seconds"]["feature_extraction"],
            "stage_2_epoch": theirs["history"][-1]["seconds"],
            "process": runs["plain"][0].seconds,
            "curve": [row["val_accuracy"] for row in theirs["history"]],
        },
        {
            "stage_1": timing["ingest"] + timing["feature_extraction"],
            "stage_2_epoch": float(ours[-1]["seconds"]),
            "process": runs["job"][0].seconds,
            "curve": [float(row["val_accuracy"]) for row in ours],
        },
    )


if __name__ == "__main__":
    main()
