"""Presets, or any other settings, against the recipe: accuracy on fixed held-out pictures, over seeds.

    python benchmarks/presets.py --data cats_dogs leaves signs --images 40 --presets small-data
    python benchmarks/presets.py --data cats_dogs --images 240 15 --presets small-data \
        --settings "--train.class_weight balanced --augmentation.flip horizontal"

For each seed so many training pictures of each class are drawn (the last number also holds for further classes); the
held-out pictures are the same for all: those of validation/, or the first ones of each class by the hash of their
bytes. Each run is a process of its own. Data sets are folders with a folder for each class, with or without train/ and
validation/.

The interval of a difference in accuracy is the central 95 % of a paired bootstrap: seeds and held-out pictures are
drawn with replacement, and a picture counts with the answers of both variants.
"""

from __future__ import annotations

import argparse
import csv
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

from job.config.load import load_settings

RESAMPLES = 10_000
"""Of the bootstrap."""

METRICS = ("accuracy", "balanced_accuracy", "lowest_recall")


def main() -> None:
    """Train every variant on every data set with every seed, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--images", type=int, nargs="+", default=[40], help="training pictures of each class")
    parser.add_argument(
        "--held_out", type=int, default=60, help="pictures of each class, where there is no validation/"
    )
    parser.add_argument("--presets", nargs="*", default=["small-data"])
    parser.add_argument(
        "--settings", nargs="*", default=[], help="further variants: flags of finetune run, one text each"
    )
    parser.add_argument("--common", default="", help="flags of every variant, the recipe included")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--title", default="Presets against the recipe")
    parser.add_argument("--keep", type=Path, help="folder with what runs measured: another start does not repeat them")
    options = parser.parse_args()
    variants = {"recipe": []} | {name: ["--preset", name] for name in options.presets}
    variants |= {flags: shlex.split(flags) for flags in options.settings}
    common = shlex.split(options.common)
    rows = []
    for data in options.data:
        measured: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
        for seed in range(1, options.seeds + 1):
            with tempfile.TemporaryDirectory() as scratch:
                pictures = subset(data, Path(scratch, "in"), options.images, seed, options.held_out)
                for number, (name, flags) in enumerate(variants.items()):
                    arguments = ["--model.weights", options.weights, "--run.seed", str(seed), *common, *flags]
                    key = [data.name, options.images, options.held_out, settings_of(arguments)]
                    output = Path(scratch, str(number))
                    result = load(options.keep, key) or train(pictures, output, arguments)
                    store(options.keep, key, result)
                    measured[name].append(result)
                    print(f"{data.name}, seed {seed}: {name}: {result['recalls']}", file=sys.stderr)
        rows += [row(data.name, name, found, measured["recipe"]) for name, found in measured.items()]
    counts = " and ".join(map(str, options.images))
    header = [
        "data",
        "variant",
        "mean accuracy",
        *(name.replace("_", " ") for name in METRICS),
        "accuracy against the recipe (95 %)",
        "CPU seconds",
        "time against the recipe's",
    ]
    harness.record(f"{options.title}: {counts} training pictures a class", header, rows)


def subset(data: Path, target: Path, images: list[int], seed: int, held_out_count: int) -> Path:
    """Link so many training pictures of each class, and all that are held out, into a folder; return it."""
    training, held_out = (data / "train", data / "validation") if (data / "train").is_dir() else (data, None)
    for number, label in enumerate(sorted(path for path in training.iterdir() if path.is_dir())):
        files = sorted(visible(label), key=lambda path: hashlib.sha256(path.read_bytes()).digest())
        kept = sorted(visible(held_out / label.name)) if held_out else files[:held_out_count]
        rest = files if held_out else files[held_out_count:]
        count = min(images[min(number, len(images) - 1)], len(rest))
        order = np.random.default_rng(seed).permutation(len(rest))
        chosen = [rest[position] for position in order[:count].tolist()]
        for split, paths in (("train", chosen), ("validation", kept)):
            folder = target / split / label.name
            folder.mkdir(parents=True)
            for path in paths:
                (folder / path.name).symlink_to(path.resolve())
    return target


def visible(folder: Path) -> list[Path]:
    """Return what is in a folder, without hidden files, and without the empty ones that some public data sets have."""
    return [path for path in folder.iterdir() if not path.name.startswith(".") and path.stat().st_size]


def settings_of(arguments: list[str]) -> dict[str, Any]:
    """Return all settings of a run, whether they come from a preset or from flags."""
    return load_settings(arguments, {}).settings.model_dump(mode="json", exclude={"preset"})


def file_of(folder: Path, key: object) -> Path:
    """Return the file with what a run measured."""
    return folder / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]}.json"


def load(folder: Path | None, key: object) -> dict[str, Any] | None:
    """Return what an earlier start measured of the same run."""
    if folder is None or not file_of(folder, key).exists():
        return None
    found: dict[str, Any] = json.loads(file_of(folder, key).read_text())
    return found


def store(folder: Path | None, key: object, result: dict[str, Any]) -> None:
    """Store what was measured of a run."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        file_of(folder, key).write_text(json.dumps(result))


def train(pictures: Path, output: Path, flags: list[str]) -> dict[str, Any]:
    """Run the job once; return its metrics on the held-out pictures, and the seconds of CPU time that it took."""
    command: list[str | Path] = [sys.executable, "-m", "job", "run", "--input.uri", pictures, "--output.uri", output]
    command += ["--report.enabled", "false", "--report.label_errors", "false", *flags]
    run = harness.run(command)
    [folder] = (output / "runs").iterdir()
    metrics = json.loads((folder / "metrics/metrics.json").read_text())
    found = metrics["validation"]
    with (folder / "metrics/predictions.csv").open() as file:
        answers = sorted((line["uri"], line["label"] == line["prediction"]) for line in csv.DictReader(file))
    recalls = {label: row["recall"] for label, row in found["labels"].items()}
    return {
        "accuracy": found["accuracy"],
        "interval": found["intervals"]["accuracy"],
        "correct": [is_correct for _, is_correct in answers],
        "balanced_accuracy": found["balanced_accuracy"],
        "lowest_recall": min(recalls.values()),
        "recalls": recalls,
        "seconds": run.cpu_seconds,
    }


def row(data: str, variant: str, found: list[dict[str, Any]], recipe: list[dict[str, Any]]) -> list[object]:
    """Return a line of the table."""
    spreads = [harness.Spread.of(one[name] for one in found) for name in METRICS]
    mean = statistics.fmean(one["accuracy"] for one in found)
    cost = statistics.fmean(one["seconds"] / other["seconds"] for one, other in zip(found, recipe, strict=True))
    seconds = harness.Spread.of(one["seconds"] for one in found)
    against = "" if found is recipe else gain(found, recipe)
    return [data, f"`{variant}`", f"{mean:.3f}", *spreads, against, seconds, f"{cost:.2f}"]


def gain(found: list[dict[str, Any]], recipe: list[dict[str, Any]]) -> str:
    """Return the mean difference in accuracy, with its interval."""
    pairs = zip(found, recipe, strict=True)
    differences = np.array([np.subtract(one["correct"], other["correct"], dtype=float) for one, other in pairs])
    random = np.random.default_rng(0)
    seeds, pictures = differences.shape
    drawn = [
        differences[np.ix_(random.integers(seeds, size=seeds), random.integers(pictures, size=pictures))].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{differences.mean():+.3f} ({low:+.3f} to {high:+.3f})"


if __name__ == "__main__":
    main()
