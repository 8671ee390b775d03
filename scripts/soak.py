"""Kill a run at random moments until it has been killed N times, and see that nothing is lost: `make soak`.

    PYTHONPATH=benchmarks python scripts/soak.py [--kills 100] [--seed 7]

Small runs are started one after the other; each is killed again and again, by SIGKILL and sometimes by SIGTERM, and
then taken to its end; every other one has a cache volume that outlives it. Lost is

    a process       that ends with anything but the signal, 75 after SIGTERM, or 0 with the run published
    a checkpoint    that was on the disk, and from which the next start did not resume
    a step          that is done twice though it was taken before the newest checkpoint, or before SIGTERM
    a run           whose arrays are not those of an undisturbed one

Prints a line for each kill and each loss, and a summary. Exit 1 on any loss, or if no start resumed from a checkpoint,
since then nothing was shown.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from attempts import Attempt
from digests import arrays_sha256
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EPOCHS = {"feature_extraction": 3, "fine_tuning": 6}

SETTINGS = (
    *("--model.weights", "none", "--model.alpha", "0.35", "--model.image_size", "32", "--export.verify_images", "8"),
    *(word for stage, epochs in EPOCHS.items() for word in (f"--{stage}.epochs", str(epochs))),
    *("--feature_extraction.batch_size", "4", "--fine_tuning.batch_size", "4", "--checkpoint.interval", "0.2"),
)


def main() -> int:
    """Kill, finish, compare; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    moments = random.Random(options.seed)  # noqa: S311 (no secret)
    started = time.monotonic()
    tally = Tally()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw(folder / "in")
        begun = time.monotonic()
        expected = Run(folder, "undisturbed", tally).finish()
        length = time.monotonic() - begun
        killed = equal = runs = 0
        while killed < options.kills and expected:
            runs += 1
            run = Run(folder, f"run-{runs}", tally)
            for _ in range(min(moments.randint(1, 8), options.kills - killed)):
                number = moments.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
                after = moments.uniform(0, length)
                code = run.kill(number, after)
                if code == 0:  # it was quicker, and has ended
                    break
                killed += 1
                print(f"kill {killed}: {number.name} after {after:.1f} s: exit {code}, {run.reached}", flush=True)
            arrays = run.finish()
            equal += arrays == expected
            if arrays not in (expected, None):
                tally.lose(f"{run.name} ended in other arrays")
    print(f"{killed} kills over {runs} runs in {time.monotonic() - started:.0f} s: {tally.lost} lost, {equal} equal")
    print(tally)
    return int(tally.lost > 0 or tally.resumed == 0)


@dataclass
class Tally:
    """What is counted over all runs.

    Attributes:
        epoch: steps of one.
        lost: how much.
        resumed: starts that resumed from a checkpoint.
        within: those of them that resumed in the middle of an epoch.
        unsaved: steps that were taken after the newest checkpoint before a signal, by its name.
        again: steps that were done twice after a signal, by its name.
    """

    epoch: int = 0
    lost: int = 0
    resumed: int = 0
    within: int = 0
    unsaved: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)

    def lose(self, what: str) -> None:
        """Count a loss, and say which."""
        self.lost += 1
        print(f"LOST: {what}", flush=True)

    def __str__(self) -> str:
        return (
            f"{self.resumed} starts resumed from a checkpoint, {self.within} of them in the middle of an epoch; steps "
            f"done twice: {self.again['SIGKILL']} after SIGKILL (of {self.unsaved['SIGKILL']} since the last "
            f"checkpoint), {self.again['SIGTERM']} after SIGTERM"
        )


class Run:
    """One run, start after start. Where it stands is counted in steps from its first one.

    Args:
        folder: where its input and its output are.
        name: its output's.
        tally: what its starts are counted in.

    Attributes:
        reached: how far the last start came, in words.
    """

    def __init__(self, folder: Path, name: str, tally: Tally) -> None:
        self.name = name
        self.reached = ""
        self._folder = folder
        self._tally = tally
        self._done = self._saved = 0
        self._ended_by = ""  # the signal's name, of the last start that came so far as to look for checkpoints

    def kill(self, number: signal.Signals, after: float) -> int:
        """Start the job, send it a signal after some seconds, and return its exit code."""
        wanted = {0}
        with self._start() as attempt:
            process = attempt.process
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                wanted |= {75 if number == signal.SIGTERM else -number}
                while number == signal.SIGTERM and process.poll() is None and not is_caught(number, process.pid):
                    time.sleep(0.01)  # it is the interpreter that would end, before the job is there
                process.send_signal(number)
            return self._end(attempt, wanted, number.name)

    def finish(self) -> str | None:
        """Take the run to its end; return the sha256 of its weights, None where it fails."""
        with self._start() as attempt:
            if self._end(attempt, {0}):
                return None
        [model] = (self._folder / self.name).glob("runs/*/model/model.keras")
        return arrays_sha256(model)

    def _start(self) -> Attempt:
        arguments: list[str | Path] = [*SETTINGS, "--input.uri", self._folder / "in"]
        arguments += ["--output.uri", self._folder / self.name]
        if self.name.endswith(("0", "2", "4", "6", "8")):
            arguments += ["--cache.dir", self._folder / "cache"]
        return Attempt(arguments, counting=True)

    def _end(self, attempt: Attempt, wanted: set[int], signal_name: str = "") -> int:
        """Wait for the end of a start; count what it did, and what it lost; return its exit code."""
        code = attempt.wait()
        published = [*(self._folder / self.name).glob("runs/*/_SUCCESS")]
        if code not in wanted or (code == 0 and not published):
            ended = f"{self.name} ended with exit {code}, {'' if published else 'not '}published"
            self._tally.lose(f"{ended}:\n{attempt.events[-5:]}\n{''.join(attempt.others)[-2000:]}")
        if "run.started" in attempt.names():
            self._count(attempt, signal_name)
        else:
            self.reached = "before it looked for checkpoints"
        return code

    def _count(self, attempt: Attempt, signal_name: str) -> None:
        tally, before = self._tally, self._ended_by
        taken = attempt.named("step.taken")
        tally.epoch = tally.epoch or next((event["steps"] for event in taken), 0)  # the undisturbed run's
        loaded = attempt.named("checkpoint.loaded")
        first = self._place(loaded[0]) if loaded else 0
        tally.resumed += len(loaded)
        tally.within += sum(event["step"] > 0 for event in loaded)
        tally.unsaved[before] += max(0, self._done - self._saved)
        tally.again[before] += max(0, self._done - first)
        if first < (self._saved if before == "SIGKILL" else self._done):
            tally.lose(f"{self.name} resumed at step {first}, after {before} at step {self._done}, {self._saved} saved")
        self._done = first + len(taken)
        if [*range(first + 1, self._done + 1)] != [*map(self._place, taken)]:
            tally.lose(f"{self.name} took other steps than {first + 1} to {self._done}")
        self._saved = max(map(self._place, self._checkpoints()), default=0)
        self._ended_by = signal_name
        self.reached = f"steps {first} to {self._done}, {self._saved} saved"

    def _checkpoints(self) -> Iterator[dict[str, Any]]:
        for index in (self._folder / self.name).glob("runs/*/checkpoints/index.json"):
            yield from (entry["state"] for entry in json.loads(index.read_bytes())["checkpoints"])

    def _place(self, facts: Mapping[str, Any]) -> int:
        """Return how many steps were done before a stage, an epoch and a step that come next."""
        epochs = facts["epoch"] + (EPOCHS["feature_extraction"] if facts["stage"] == "fine_tuning" else 0)
        return int(epochs * self._tally.epoch + facts["step"])


def is_caught(number: signal.Signals, pid: int) -> bool:
    """Whether a process has a handler for a signal."""
    [caught] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt")]
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def draw(folder: Path) -> None:
    """Draw a few pictures of two classes."""
    for n in range(24):
        for label, shade in (("dark", 90), ("light", 160)):
            (folder / label).mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(n + shade).integers(-50, 50, (40, 30, 3))
            Image.fromarray(np.clip(shade + noise, 0, 255).astype(np.uint8)).save(folder / label / f"{n}.png")


if __name__ == "__main__":
    sys.exit(main())
