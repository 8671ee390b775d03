"""Presets, or any other settings, against the recipe: accuracy on fixed held-out pictures, over seeds.

    python benchmarks/presets.py --data cats_dogs leaves signs --images 40 --presets small-data
    python benchmarks/presets.py --data cats_dogs --images 240 15 --presets small-data \
        --settings "--train.class_weight balanced --augmentation.flip horizontal"

For each seed so many training pictures of each class are drawn (the last number also holds for further classes); the
held-out pictures are the same for all: those of validation/, or the first ones of each class by the hash of their
bytes. Each run is a process of its own. Data sets are folders with a folder for each class, with or without train/ and
validation/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import harness
import numpy as np

HELD_OUT = 60
"""Pictures of each class that are held out where there is no validation/."""

METRICS = ("accuracy", "balanced_accuracy", "lowest_recall")


def main() -> None:
    """Train every variant on every data set with every seed, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--images", type=int, nargs="+", default=[40], help="training pictures of each class")
    parser.add_argument("--presets", nargs="*", default=["small-data"])
    parser.add_argument(
        "--settings", nargs="*", default=[], help="further variants: flags of finetune run, one text each"
    )
    parser.add_argument("--common", default="", help="flags of every variant, the recipe included")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--title", default="Presets against the recipe")
    options = parser.parse_args()
    variants = {"recipe": []} | {name: ["--preset", name] for name in options.presets}
    variants |= {flags: shlex.split(flags) for flags in options.settings}
    common = shlex.split(options.common)
    rows = []
    for data in options.data:
        measured: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
        for seed in range(1, options.seeds + 1):
            with tempfile.TemporaryDirectory() as scratch:
                pictures = subset(data, Path(scratch, "in"), options.images, seed)
                for number, (name, flags) in enumerate(variants.items()):
                    measured[name].append(
                        train(pictures, Path(scratch, str(number)), options.weights, seed, [*common, *flags])
                    )
                    print(f"{data.name}, seed {seed}: {name}: {measured[name][-1]}", file=sys.stderr)
        rows += [row(data.name, name, found, measured["recipe"]) for name, found in measured.items()]
    counts = " and ".join(map(str, options.images))
    header = [
        "data",
        "variant",
        *(name.replace("_", " ") for name in METRICS),
        "accuracy against the recipe",
        "seconds",
    ]
    harness.record(f"{options.title}: {counts} training pictures a class", header, rows)


def subset(data: Path, target: Path, images: list[int], seed: int) -> Path:
    """Link so many training pictures of each class, and all that are held out, into a folder; return it."""
    training, held_out = (data / "train", data / "validation") if (data / "train").is_dir() else (data, None)
    for number, label in enumerate(sorted(path for path in training.iterdir() if path.is_dir())):
        files = sorted(label.iterdir(), key=lambda path: hashlib.sha256(path.read_bytes()).digest())
        kept = sorted((held_out / label.name).iterdir()) if held_out else files[:HELD_OUT]
        rest = files if held_out else files[HELD_OUT:]
        count = min(images[min(number, len(images) - 1)], len(rest))
        order = np.random.default_rng(seed).permutation(len(rest))
        chosen = [rest[position] for position in order[:count].tolist()]
        for split, paths in (("train", chosen), ("validation", kept)):
            folder = target / split / label.name
            folder.mkdir(parents=True)
            for path in paths:
                (folder / path.name).symlink_to(path.resolve())
    return target


def train(pictures: Path, output: Path, weights: str, seed: int, flags: list[str]) -> dict[str, Any]:
    """Run the job once, and return its metrics on the held-out pictures, with the seconds that it took."""
    command: list[str | Path] = [sys.executable, "-m", "job", "run", "--input.uri", pictures, "--output.uri", output]
    command += ["--model.weights", weights, "--run.seed", str(seed)]
    command += ["--report.enabled", "false", "--report.label_errors", "false", *flags]
    run = harness.run(command)
    [folder] = (output / "runs").iterdir()
    metrics = json.loads((folder / "metrics/metrics.json").read_text())
    found = metrics["validation"]
    recalls = {label: row["recall"] for label, row in found["labels"].items()}
    return {
        "accuracy": found["accuracy"],
        "interval": found["intervals"]["accuracy"],
        "balanced_accuracy": found["balanced_accuracy"],
        "lowest_recall": min(recalls.values()),
        "recalls": recalls,
        "seconds": run.seconds,
    }


def row(data: str, variant: str, found: list[dict[str, Any]], recipe: list[dict[str, Any]]) -> list[object]:
    """Return a line of the table."""
    spreads = [harness.Spread.of(one[name] for one in found) for name in METRICS]
    gain = statistics.fmean(one["accuracy"] - other["accuracy"] for one, other in zip(found, recipe, strict=True))
    return [data, f"`{variant}`", *spreads, f"{gain:+.3f}", harness.Spread.of(one["seconds"] for one in found)]


if __name__ == "__main__":
    main()
