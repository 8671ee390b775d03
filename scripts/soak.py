"""Kill a run at random moments until it has been killed N times, and see that nothing is lost: `make soak`.

    python scripts/soak.py [--kills 100] [--seed 7]

Small runs are started one after the other; each is killed again and again, by SIGKILL and sometimes by SIGTERM, and
then taken to its end; every other one has a cache volume that outlives it. Its arrays must be those of an undisturbed
run. A line a kill, a summary, exit 1 on any loss.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

SETTINGS = (
    *("--model.weights", "none", "--model.alpha", "0.35", "--model.image_size", "32", "--export.verify_images", "8"),
    *("--feature_extraction.epochs", "3", "--fine_tuning.epochs", "6", "--checkpoint.interval", "0.2"),
    *("--feature_extraction.batch_size", "4", "--fine_tuning.batch_size", "4"),
)


def main() -> int:
    """Kill, finish, compare; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    moments = random.Random(options.seed)  # noqa: S311 (no secret)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw(folder / "in")
        begun = time.monotonic()
        expected = finish(folder, "undisturbed")
        length = time.monotonic() - begun
        killed = equal = runs = 0
        while killed < options.kills:
            runs += 1
            for _ in range(min(moments.randint(1, 8), options.kills - killed)):
                number = moments.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
                after = moments.uniform(0, length)
                code = kill(folder, f"run-{runs}", number, after)
                if code == 0:  # it was quicker, and has ended
                    break
                killed += 1
                print(f"kill {killed}: {number.name} after {after:.1f} s: exit {code}", flush=True)
            equal += finish(folder, f"run-{runs}") == expected
        lost = runs - equal
    print(f"{killed} kills over {runs} runs in {time.monotonic() - started:.0f} s: {lost} lost, {equal} equal")
    return int(lost > 0)


def draw(folder: Path) -> None:
    """Draw a few pictures of two classes."""
    for n in range(24):
        for label, shade in (("dark", 90), ("light", 160)):
            (folder / label).mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(n + shade).integers(-50, 50, (40, 30, 3))
            Image.fromarray(np.clip(shade + noise, 0, 255).astype(np.uint8)).save(folder / label / f"{n}.png")


def start(folder: Path, output: str) -> subprocess.Popen[bytes]:
    """Start the job."""
    command = [sys.executable, "-m", "job", "run", *SETTINGS]
    command += ["--input.uri", str(folder / "in"), "--output.uri", str(folder / output)]
    if output.endswith(("0", "2", "4", "6", "8")):
        command += ["--cache.dir", str(folder / "cache")]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, stderr=log)


def kill(folder: Path, output: str, number: signal.Signals, after: float) -> int:
    """Start the job, send it a signal after some seconds, and return its exit code."""
    process = start(folder, output)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    return process.wait()


def finish(folder: Path, output: str) -> str:
    """Take a run to its end; return the sha256 of its weights, or what happened instead."""
    code = start(folder, output).wait()
    if code:
        print((folder / "log").read_text()[-2000:])
        return f"exit {code}"
    [model] = (folder / output).glob("runs/*/model/model.keras")
    with zipfile.ZipFile(model) as archive, tempfile.TemporaryDirectory() as scratch:
        return arrays_sha256(Path(archive.extract("model.weights.h5", scratch)))


def arrays_sha256(weights: Path) -> str:
    """Return the sha256 over all arrays of an HDF5 file, with their names."""
    import h5py

    sha256 = hashlib.sha256()
    with h5py.File(weights) as file:
        file.visititems(
            lambda name, item: (
                sha256.update(name.encode() + item[()].tobytes()) if isinstance(item, h5py.Dataset) else None
            )
        )
    return sha256.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
