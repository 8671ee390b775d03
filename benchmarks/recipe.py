"""The job against the plain Keras script: the same validation curve, in less time.

    python benchmarks/recipe.py        three seeds, 10 + 10 epochs; some 20 minutes on two cores

All train on the same pictures (600 where they are drawn) with the same split, from the same ImageNet weights, each in a
process of its own, in turn: the script as TensorFlow chooses about oneDNN on this CPU; the script with oneDNN off, as
TensorFlow chooses on others; and the job, which has it on by default.
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

PEERS = {"oneDNN off": {"TF_ENABLE_ONEDNN_OPTS": "0"}, "TensorFlow's choice": {}}

Measured = dict[str, Any]


def main() -> None:
    """Run all in turn for each seed, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_inputs(parser)
    parser.add_argument("--image_size", type=int, default=160)
    parser.add_argument("--epochs", type=int, nargs=2, default=[10, 10])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, harness.pictures(options) as data:
        rounds = [compare(options, data, seed, Path(scratch)) for seed in range(1, options.rounds + 1)]
    jobs = [measured["job"] for measured in rounds]
    peers = {name: [measured[name] for measured in rounds] for name in PEERS}
    stage_1, stage_2 = options.epochs
    rows: list[list[object]] = []
    for name, key, *reach in (
        (f"stage 1: {stage_1} epochs (the job: the pass over the data counted)", "stage_1", ">= 14x with oneDNN off"),
        ("stage 2: the last epoch with validation", "stage_2_epoch", ">= 2.3x with oneDNN off"),
        ("process: import to exit (the job: export, check and publishing counted)", "process", ">= 3x"),
    ):
        seconds = harness.Spread.of(job[key] for job in jobs)
        against = [
            text
            for peer in peers.values()
            for text in (
                harness.Spread.of(one[key] for one in peer),
                f"{harness.ratio([one[key] for one in peer], [job[key] for job in jobs])}x",
            )
        ]
        rows.append([f"{name}: seconds", seconds, *against, *reach])
    for name, pick in (
        ("val_accuracy, mean over all epochs", statistics.fmean),
        ("val_accuracy, last epoch", lambda curve: curve[-1]),
    ):
        ours = [pick(job["curve"]) for job in jobs]
        row: list[object] = [name, harness.Spread.of(ours)]
        for peer in peers.values():
            theirs = [pick(one["curve"]) for one in peer]
            row += [harness.Spread.of(theirs), f"{statistics.fmean(ours) - statistics.fmean(theirs):+.4f}"]
        rows.append([*row, "within 0.01" if pick is statistics.fmean else ">= 0.95"])
    wait = harness.Spread.of(100 * job["input_wait"] for job in jobs)
    rows.append(["stage 2: waiting for data, percent of the steps' time", wait, "", "", "", "", "< 5"])
    header = ["", "the job", *(text for name in PEERS for text in (f"plain Keras, {name}", "ratio; difference"))]
    title = f"The recipe, {stage_1} + {stage_2} epochs, against plain Keras"
    harness.record(title, [*header, "reach"], rows)


def compare(options: argparse.Namespace, data: Path, seed: int, scratch: Path) -> dict[str, Measured]:
    """Run all once, and return what is compared of each."""
    output, size, epochs = scratch / f"job-{seed}", str(options.image_size), list(map(str, options.epochs))
    job: list[str | Path] = [sys.executable, "-m", "job", "run", "--input.uri", data, "--output.uri", output]
    job += ["--model.weights", options.weights, "--model.image_size", size, "--run.seed", str(seed)]
    job += ["--feature_extraction.epochs", epochs[0], "--fine_tuning.epochs", epochs[1]]
    plain: list[str | Path] = [sys.executable, Path(__file__).parent / "plain_keras.py", "--data", data]
    plain += ["--weights", options.weights, "--image_size", size, "--epochs", *epochs, "--seed", str(seed)]
    histories = {name: scratch / f"{seed} {name}.json" for name in PEERS}
    commands = {name: [*plain, "--json", history] for name, history in histories.items()}
    runs = harness.alternate({**commands, "job": job}, rounds=1, environments=PEERS)
    measured = {name: read_peer(history) for name, history in histories.items()} | {"job": read_job(output)}
    return {name: {**one, "process": runs[name][0].seconds} for name, one in measured.items()}


def read_peer(path: Path) -> Measured:
    """Return what the plain script wrote down."""
    found = json.loads(path.read_text())
    return {
        "stage_1": found["seconds"]["feature_extraction"],
        "stage_2_epoch": found["history"][-1]["seconds"],
        "curve": [row["val_accuracy"] for row in found["history"]],
    }


def read_job(output: Path) -> Measured:
    """Return what the job published."""
    [folder] = (output / "runs").iterdir()
    metrics = json.loads((folder / "metrics/metrics.json").read_text())
    history = list(csv.DictReader((folder / "metrics/history.csv").read_text().splitlines()))
    return {
        "stage_1": metrics["timing"]["ingest"] + metrics["timing"]["feature_extraction"],
        "stage_2_epoch": float(history[-1]["seconds"]),
        "curve": [float(row["val_accuracy"]) for row in history],
        "input_wait": metrics["stages"]["fine_tuning"]["input_wait"],
    }


if __name__ == "__main__":
    main()
