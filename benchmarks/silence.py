"""How long a person waits without a moving sign: at most 3 seconds, whatever the job does meanwhile.

    python benchmarks/silence.py

Each command runs on a terminal. The screen is looked at after everything that the command writes; a silence is the time
between two looks at which the screen differs, the start and the end of the process included. The demo draws its
pictures and starts its emulator, the run reads 600 pictures that are drawn here.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import harness
import terminal

COLUMNS = 100


class Silence(NamedTuple):
    """A time without a moving sign.

    Attributes:
        seconds: how long.
        shown: the last line on the screen.
    """

    seconds: float
    shown: str


def main() -> None:
    """Run each command, and record its longest silence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_inputs(parser)
    parser.add_argument("--image_size", type=int, default=224)
    options = parser.parse_args()
    job = [sys.executable, "-m", "job"]
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as scratch, harness.pictures(options) as pictures:
        run = ["run", "--input.uri", str(pictures), "--output.uri", f"{scratch}/out"]
        run += ["--model.weights", options.weights, "--model.image_size", str(options.image_size)]
        run += ["--feature_extraction.epochs", "1", "--fine_tuning.epochs", "1"]
        commands = {
            "`finetune summary`": ["summary"],
            "`finetune run`, 600 pictures, 1 + 1 epochs": run,
            "`finetune demo`": ["demo"],
        }
        for name, arguments in commands.items():
            seconds, longest = watch([*job, *arguments], Path(scratch))
            rows.append([name, f"{seconds:.0f}", f"{longest.seconds:.2f}", "<= 3"])
            print(f"{name}: {longest.seconds:.2f} s after {longest.shown!r}", file=sys.stderr)
    harness.record("Silences", ["", "seconds in all", "longest silence: seconds", "reach"], rows)


def watch(command: list[str], folder: Path) -> tuple[float, Silence]:
    """Return the seconds that a command took, and its longest silence.

    Args:
        command: program and arguments.
        folder: its working directory and that for temporary files.
    """
    variables = {"PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(folder)}
    screen, silences = terminal.Screen(COLUMNS), []
    started, changed, shown = time.monotonic(), 0.0, [""]
    for seconds, data in terminal.run(command, columns=COLUMNS, environment=variables, folder=folder):
        screen.write(data)
        if (lines := screen.text()[-terminal.ROWS :]) != shown:
            silences.append(Silence(seconds - changed, next((line for line in reversed(shown) if line), "")))
            changed, shown = seconds, lines
    total = time.monotonic() - started
    silences.append(Silence(total - changed, "the end"))
    return total, max(silences)


if __name__ == "__main__":
    main()
