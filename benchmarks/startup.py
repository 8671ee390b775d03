"""How soon the first training step is done: not much later than TensorFlow is imported and the model built.

    python benchmarks/startup.py

The peer is a process that imports TensorFlow and Keras, and builds the model of plain_keras.py with its weights: no run
can do without these. The job counts from its start to the end of its first step, on 32 pictures: settings, listing,
its own imports, folding, the pass over the data with the compilation of the features' graph, and the compilation of the
step are all in it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import harness

IMAGES = {"train": 12, "validation": 4}  # of each class: together one range of the pass over the data
PEER = """
import argparse, sys, time
sys.path.insert(0, sys.argv[1])
import plain_keras
plain_keras.build(argparse.Namespace(image_size=int(sys.argv[3]), weights=sys.argv[2], alpha=1.0), classes=2)
print("ready at", time.time())
"""


def main() -> None:
    """Start both in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_inputs(parser)
    parser.add_argument("--image_size", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    peers, jobs = [], []
    with tempfile.TemporaryDirectory() as scratch, harness.pictures(options) as pictures:
        data = Path(scratch) / "in"
        copy(pictures, data)
        start_peer(options)  # note: once, so that neither reads from a cold disk
        for number in range(options.rounds):
            peers.append(start_peer(options))
            jobs.append(start_job(options, data, Path(scratch) / f"out-{number}"))
            print(f"{peers[-1]:.2f} s against {jobs[-1]['first step']:.2f} s", file=sys.stderr)
    beyond = [(job["first step"] - peer) / peer for peer, job in zip(peers, jobs, strict=True)]
    rows: list[list[object]] = [
        ["importing TensorFlow and building the model, alone: seconds", harness.Spread.of(peers), ""],
        ["the job to the end of its first step: seconds", harness.Spread.of(job["first step"] for job in jobs), ""],
        *([f"of these: {part}", harness.Spread.of(job[part] for job in jobs), ""] for part in list(jobs[0])[1:]),
        ["what comes on top, as a part of the first", harness.Spread.of(beyond), "<= 0.3"],
    ]
    harness.record("Start to the first step", ["", "", "reach"], rows)


def copy(source: Path, target: Path) -> None:
    """Copy a few pictures of each folder."""
    for side, images in IMAGES.items():
        for folder in (source / side).iterdir():
            for path in sorted(folder.iterdir())[:images]:
                copied = target / path.relative_to(source)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copied)


def start_peer(options: argparse.Namespace) -> float:
    """Return the seconds from the start of the process until the model is built."""
    command = [sys.executable, "-c", PEER, str(Path(__file__).parent), options.weights, str(options.image_size)]
    started = time.time()
    [line] = [line for line in harness.run(command).output.splitlines() if line.startswith("ready at")]
    return float(line.split()[-1]) - started


def start_job(options: argparse.Namespace, data: Path, output: Path) -> dict[str, float]:
    """Return the seconds until the first step is done, and what the job itself says of them."""
    command = [sys.executable, "-m", "job", "run", "--input.uri", str(data), "--output.uri", str(output)]
    command += ["--model.weights", options.weights, "--model.image_size", str(options.image_size)]
    command += ["--feature_extraction.epochs", "1", "--fine_tuning.epochs", "0"]
    started = time.time()
    lines = [json.loads(line) for line in harness.run(command).output.splitlines() if line.startswith("{")]
    [stepped] = [line for line in lines if line["message"] == "stage.first_step"]
    [metrics] = output.glob("runs/*/metrics/metrics.json")
    timing = json.loads(metrics.read_text())["timing"]
    parts = {name: timing[name] for name in ("list", "import", "model", "ingest")} | {"the step": stepped["seconds"]}
    return {"first step": dt.datetime.fromisoformat(stepped["time"]).timestamp() - started} | parts


if __name__ == "__main__":
    main()
