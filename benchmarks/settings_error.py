"""Help and wrong settings are answered within half a second, all mistakes at once, before TensorFlow is loaded.

    python benchmarks/settings_error.py

A mistake in the file, one in the environment and four in the flags: each run must end with exit code 2 and name all of
them. The time is that of the whole process, as a user or a Pod waits for it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE = "fine_tuning: {epochs: -1}\n"
ENVIRONMENT = {"FINETUNE_MODEL__IMAGE_SIZ": "224"}
FLAGS = ["--input.uri", "gs:/typo", "--output.uri", "", "--model.alpha", "wide", "--feature_extracion.epochs", "3"]
NAMED = [
    *("fine_tuning.epochs", "FINETUNE_MODEL__IMAGE_SIZ"),
    *("input.uri", "output.uri", "model.alpha", "feature_extracion.epochs"),
]


def main() -> None:
    """Make the same mistakes again and again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "settings.yaml"
        file.write_text(FILE)
        command = [sys.executable, "-m", "job", "run", "--config", str(file), *FLAGS]
        bare = [sys.executable, "-c", "pass"]
        calls = {
            "Python alone": (bare, 0),
            f"`finetune run` with {len(NAMED)} mistakes": (command, 2),
            "`finetune --help`": ([sys.executable, "-m", "job", "--help"], 0),
            "`finetune run --help model`": ([sys.executable, "-m", "job", "run", "--help", "model"], 0),
        }
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(options.rounds):
            for name, (arguments, code) in calls.items():
                seconds[name].append(timed(arguments, exit_code=code))
    rows = [
        [name, harness.Spread.of(taken), "" if name == "Python alone" else "<= 0.5"] for name, taken in seconds.items()
    ]
    harness.record("A settings error", ["", "seconds", "reach"], rows)


def timed(command: Sequence[str], *, exit_code: int) -> float:
    """Return the wall seconds of a command that ends as expected, and names every mistake if it makes any."""
    started = time.perf_counter()
    done = subprocess.run(
        command, env=os.environ | ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    assert done.returncode == exit_code, f"exit {done.returncode}, expected {exit_code}:\n{done.stderr}"
    assert not exit_code or all(name in done.stderr for name in NAMED), done.stderr
    return seconds


if __name__ == "__main__":
    main()
