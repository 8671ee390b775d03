"""The job against PyTorch and against plain Keras: stage 2 in images a second, and the whole process.

    python benchmarks/peers.py                        3 + 3 epochs, three rounds; some 7 minutes on two cores
    python benchmarks/peers.py --epochs 10 10 --rounds 1

All train the same recipe on the same pictures with the same batch, image size and threads, from the same ImageNet
weights, each in a process of its own, in turn: plain_torch.py, plain_keras.py as TensorFlow chooses about oneDNN on
this CPU, and the job. PyTorch is installed into an environment of its own, the newest build that the package index has
for this Python: a build with CUDA takes 6 GB there, and is measured on the CPU all the same.

Measure on an idle machine: PyTorch's threads wait for each other in every operation, so other work that takes a core
delays it far more than it delays the job. The processor time of each process is recorded beside its seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import harness

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parent / "build/torch"
JOB, TORCH, KERAS = "the job", "PyTorch", "plain Keras"
REACH = 1.8
SECONDS = ("process", "processor")
"""Fields of which less is better."""


class Measured(NamedTuple):
    """One process.

    Attributes:
        steps: training images a second in stage 2's steps, validation not counted; None: not measured.
        epoch: training images a second of a whole epoch of stage 2, validation counted.
        process: seconds from its start to its end.
        processor: seconds of all its threads and children.
        accuracy: of the last epoch, on the validation images.
    """

    steps: float | None
    epoch: float
    process: float
    processor: float
    accuracy: float


def main() -> None:
    """Run all in turn, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_inputs(parser)
    parser.add_argument("--image_size", type=int, default=160)
    parser.add_argument("--epochs", type=int, nargs=2, default=[3, 3])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--environment", type=Path, default=ENVIRONMENT, help="a folder, made if it is missing")
    options = parser.parse_args()
    python = install(options.environment)
    with tempfile.TemporaryDirectory() as folder, harness.pictures(options) as data:
        scratch = Path(folder)
        weights = write_weights(options.weights, options.image_size, scratch / "weights.npz")
        rounds = [compare(options, python, data, weights, scratch / str(n)) for n in range(1, options.rounds + 1)]
        build = json.loads((scratch / "1" / f"{TORCH}.json").read_text())["build"]
    record(options.epochs, build, {name: [measured[name] for measured in rounds] for name in rounds[0]})


def install(folder: Path) -> Path:
    """Return the Python of an environment with torch and torchvision; make it if it is missing."""
    python, complete = folder / "bin/python", folder / ".installed"
    if not complete.exists():
        print(f"installing PyTorch into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += ["--no-cache-dir", "--only-binary", ":all:"]
        subprocess.run([*pip, "torch", "torchvision"], check=True)
        complete.touch()
    return python


def write_weights(weights: str, image_size: int, path: Path) -> Path:
    """Write the backbone's arrays in the order of its layers, for a process without Keras.

    Args:
        weights: as ``model.weights`` of a run, a file or imagenet.
        image_size: of the backbone.
        path: the .npz to write.
    """
    program = (
        "import sys, keras, numpy\n"
        "weights, size, path = sys.argv[1:]\n"
        "network = keras.applications.MobileNetV2(input_shape=(int(size), int(size), 3), include_top=False,\n"
        "    weights=None if weights == 'none' else weights)\n"
        "numpy.savez(path, **{str(n): array for n, array in enumerate(network.get_weights())})\n"
    )
    harness.run([sys.executable, "-c", program, weights, str(image_size), path])
    return path


def compare(options: argparse.Namespace, python: Path, data: Path, weights: Path, scratch: Path) -> dict[str, Measured]:
    """Run all once."""
    scratch.mkdir()
    images = sum(path.is_file() for path in (data / "train").rglob("*"))
    size, epochs = str(options.image_size), list(map(str, options.epochs))
    shared: list[str | Path] = ["--data", data, "--image_size", size, "--epochs", *epochs]
    threads = str(options.threads)
    torch: list[str | Path] = [python, HERE / "plain_torch.py", *shared, "--weights", weights, "--threads", threads]
    keras: list[str | Path] = [sys.executable, HERE / "plain_keras.py", *shared, "--weights", options.weights]
    job: list[str | Path] = [sys.executable, "-m", "job", "run", "--input.uri", data, "--output.uri", scratch / "job"]
    job += ["--model.weights", options.weights, "--model.image_size", size, "--device.threads", threads]
    job += ["--feature_extraction.epochs", epochs[0], "--fine_tuning.epochs", epochs[1]]
    peers = {TORCH: torch, KERAS: keras}
    commands = {name: [*command, "--json", scratch / f"{name}.json"] for name, command in peers.items()}
    runs = harness.alternate(
        {**commands, JOB: job}, rounds=1, environments={KERAS: {"TF_NUM_INTRAOP_THREADS": threads}}
    )
    histories = {name: json.loads((scratch / f"{name}.json").read_text())["history"] for name in peers}
    histories[JOB] = harness.history(scratch / "job")
    return {name: measure(histories[name], images, runs[name][0]) for name in (JOB, *peers)}


def measure(history: list[dict[str, Any]], images: int, process: harness.Run) -> Measured:
    """Return the figures of one process.

    The first epoch of stage 2, which compiles, is not counted unless it is the only one.

    Args:
        history: a row for each epoch, of any of the programs.
        images: that an epoch trains on.
        process: that wrote it.
    """
    rows = [row for row in history if row["stage"] == "fine_tuning"]
    rows = rows[1:] or rows
    steps = [
        float(row["images_per_second"]) if "images_per_second" in row else images / row["train_seconds"]
        for row in rows
        if "images_per_second" in row or "train_seconds" in row
    ]
    return Measured(
        steps=statistics.median(steps) if steps else None,
        epoch=statistics.median(images / float(row["seconds"]) for row in rows),
        process=process.seconds,
        processor=process.cpu_seconds,
        accuracy=float(history[-1]["val_accuracy"]),
    )


def record(epochs: list[int], build: dict[str, Any], found: dict[str, list[Measured]]) -> None:
    """Write the section.

    Args:
        epochs: of both stages.
        build: what `plain_torch.versions` returns.
        found: name -> a process a round.
    """
    jobs = found.pop(JOB)
    rows: list[list[object]] = []
    speed = harness.ratio([job.steps for job in jobs if job.steps], [one.steps for one in found[TORCH] if one.steps])
    for title, field, reach in (
        ("stage 2: images/s of its steps", "steps", f">= {REACH}x PyTorch"),
        ("stage 2: images/s of an epoch, validation counted", "epoch", ""),
        ("the process, import to exit (the job: export, check and publishing counted): seconds", "process", ""),
        ("the process: seconds of processor time", "processor", ""),
        ("val_accuracy, last epoch", "accuracy", ""),
    ):
        ours = [getattr(job, field) for job in jobs]
        row: list[object] = [title, harness.Spread.of(ours)]
        for peer in found.values():
            theirs = [getattr(one, field) for one in peer]
            row += [harness.Spread.of(theirs), against(field, theirs, ours)] if None not in theirs else ["", ""]
        rows.append([*row, reach])
    columns = [text for name in found for text in (name, "ratio; difference")]
    onednn = "on" if build["onednn"] else "off"
    used = f"{build['cpu_capability']}, oneDNN {onednn}, channels_last, threads: {build['threads']}"
    versions = f"torch {build['torch']}, torchvision {build['torchvision']}"
    harness.record(
        "The recipe against PyTorch",
        [f"{epochs[0]} + {epochs[1]} epochs", JOB, *columns, "reach"],
        rows,
        closing=f"PyTorch: {versions}, {used}. Stage 2, the job over PyTorch: {speed.median:.1f}x",
    )


def against(field: str, theirs: list[float], ours: list[float]) -> str:
    """Return how many times faster the job is, round by round; of accuracies the difference of the means."""
    if field == "accuracy":
        return f"{statistics.fmean(ours) - statistics.fmean(theirs):+.4f}"
    return f"{harness.ratio(theirs, ours) if field in SECONDS else harness.ratio(ours, theirs)}x"


if __name__ == "__main__":
    main()
