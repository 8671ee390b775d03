"""Every backbone: parameters, milliseconds of a stage 2 step plain and folded, size of the SavedModel, and accuracy.

    python benchmarks/backbones.py
    python benchmarks/backbones.py --data DIR --weights_dir DIR --rounds 10 ConvNeXtTiny ResNet50

Steps are timed in float32, plain and folded in turn, in one process for each backbone. Times do not depend on the
weights, which are random for them. Accuracy is that of a run of both stages on `--data`, where the ImageNet weights of
the backbone are on this machine (`--weights_dir`, or Keras's cache); nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import folding as folding_benchmark
import harness
import numpy as np

from job.config.backbones import BACKBONES
from job.config.load import load_settings
from job.model import backbones, weights
from job.runtime import device

if TYPE_CHECKING:
    from job.config.settings import Settings

MEASURED = "--only-measure"


def main() -> None:
    """Measure each backbone in a process of its own, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(BACKBONES), metavar="BACKBONE", help="default: all")
    parser.add_argument("--data", type=Path, help="train/ and validation/, a folder a class in each; default: drawn")
    parser.add_argument("--weights_dir", default="/opt/finetune/weights", help="with ImageNet weights")
    parser.add_argument("--image_size", type=int, default=112, help="of all pictures")
    parser.add_argument("--images", type=int, default=16, help="in a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="of each stage, for the accuracy")
    parser.add_argument(MEASURED, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.names) - set(BACKBONES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(BACKBONES)}")
    if options.only_measure:
        print(json.dumps(measure(options)))
        return
    with harness.pictures(options) as pictures:
        rows = [row(name, options, pictures) for name in options.names]
    what = f"{options.images} images of {options.image_size} pixels"
    header = [
        "backbone",
        "parameters, millions",
        f"step plain, ms ({what})",
        "step folded, ms",
        "fold gain",
        "SavedModel, MB",
        f"validation accuracy, {options.epochs} + {options.epochs} epochs",
    ]
    harness.record("Backbones", header, rows)


def row(name: str, options: argparse.Namespace, pictures: Path) -> list[object]:
    """Return the backbone's row of the table."""
    command: list[str | Path] = [sys.executable, __file__, name, MEASURED]
    for option in ("image_size", "images", "rounds"):
        command += [f"--{option}", str(getattr(options, option))]
    found = json.loads(harness.run(command).output.splitlines()[-1])
    plain, folded = (harness.Spread.of(found[which]).median for which in ("plain", "folded"))
    return [
        name,
        f"{BACKBONES[name].parameters / 1e6:.1f}",
        f"{plain * 1e3:.0f}",
        f"{folded * 1e3:.0f}",
        f"{harness.ratio(found['plain'], found['folded'])}x",
        f"{found['bytes'] / 1e6:.1f}",
        accuracy(name, options, pictures),
    ]


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return the seconds of each step, plain and folded, and the bytes of the SavedModel."""
    [name] = options.names
    flags = ["--model.backbone", name, "--model.weights", "none", "--model.image_size", str(options.image_size)]
    settings = load_settings(flags, {}).settings
    device.prepare()
    device.configure(settings)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (options.images, options.image_size, options.image_size, 3)).astype(np.uint8)
    labels = (np.arange(options.images) % 2).astype(np.int32)
    times = folding_benchmark.speed(settings, pixels, labels, options.rounds)["training step"]
    return {"plain": times[0], "folded": times[1], "bytes": saved_bytes(settings)}


def saved_bytes(settings: Settings) -> int:
    """Return the size of the exported SavedModel."""
    from job.export import saved_model

    classifier, _ = folding_benchmark.create(settings)
    with tempfile.TemporaryDirectory() as folder:
        saved_model.save(classifier, Path(folder, "model"), max_pixels=2**26)
        return sum(path.stat().st_size for path in Path(folder, "model", "saved_model").rglob("*") if path.is_file())


def accuracy(name: str, options: argparse.Namespace, pictures: Path) -> str:
    """Return the validation accuracy of a run, or why there is none."""
    # Keras has files of its own for a few sizes; those of the largest, 224, fit any.
    files = [backbones.file_name(name, 1.0, size) for size in (options.image_size, 224)]
    paths = [Path(folder, file) for file in files for folder in (options.weights_dir, weights.cache_folder())]
    if (found := next(filter(Path.exists, paths), None)) is None:
        return "no weights here"
    with tempfile.TemporaryDirectory() as output:
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "job",
            "run",
            "--input.uri",
            str(pictures),
            "--output.uri",
            output,
        ]
        command += ["--model.backbone", name, "--model.image_size", str(options.image_size)]
        command += ["--model.weights", found, "--report.enabled", "false"]
        for stage in ("feature_extraction", "fine_tuning"):
            command += [f"--{stage}.epochs", str(options.epochs)]
        harness.run(command)
        return f"{harness.document(Path(output), 'metrics/metrics.json')['validation']['accuracy']:.3f}"


if __name__ == "__main__":
    main()
