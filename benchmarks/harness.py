"""What every benchmark does the same way: whole processes in turn, medians with spread, one section of RESULTS.md.

Peer and job run A, B, A, B, … so that a machine whose speed drifts slows both; what counts is the ratio pair by pair.

    runs = alternate({"plain": [...], "job": [...]}, rounds=3)
    record("Stage 1", ["", "seconds"], [[name, Spread.of(run.seconds for run in runs[name])] for name in runs])
"""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.data import demo_pictures

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Mapping, Sequence

RESULTS = Path(__file__).parent / "RESULTS.md"
PREAMBLE = "# Results\n\nWritten by `make bench`: the median (smallest to largest, number of runs).\n"
PACKAGES = ("tensorflow-cpu", "tensorflow", "keras", "numpy", "obstore", "google-cloud-storage")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished process, as the operating system accounts for it."""

    seconds: float
    """Wall time from start to exit."""
    cpu_seconds: float
    """User and system time, finished children counted."""
    peak_bytes: int
    """The largest resident set of any one process in it."""
    output: str
    """Standard output and error, in the order written."""


@dataclass(frozen=True)
class Spread:
    """The median of some runs, between their smallest and their largest."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Take the spread of at least one value."""
        sample = list(values)
        return cls(statistics.median(sample), min(sample), max(sample), len(sample))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g}, n = {self.count})"


def run(command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None) -> Run:
    """Run one command to its end.

    Args:
        command: program and arguments; no shell.
        environment: added to this process's own.

    Raises:
        subprocess.CalledProcessError: the command failed; its output is printed before.
    """
    environment = {**os.environ, **(environment or {})}
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        # note: wait4 gives this one child's peak; RUSAGE_CHILDREN keeps the largest of all children so far
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        output = log.read().decode(errors="replace")
    if process.returncode:
        print(output, file=sys.stderr)
        raise subprocess.CalledProcessError(process.returncode, command)
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Run(seconds=seconds, cpu_seconds=cpu_seconds, peak_bytes=usage.ru_maxrss * 1024, output=output)


def alternate(
    commands: Mapping[str, Sequence[str | Path]],
    *,
    rounds: int = 3,
    environments: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, list[Run]]:
    """Run each command once a round, in the order given, and return each one's runs by its name.

    Args:
        commands: name -> program and arguments.
        rounds: how often each is run.
        environments: name -> variables for that command alone.
    """
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(1, rounds + 1):
        for name, command in commands.items():
            runs[name].append(run(command, environment=(environments or {}).get(name)))
            print(f"round {number} of {rounds}: {name}: {runs[name][-1].seconds:.2f} s", file=sys.stderr)
    return runs


def ratio(peer: Iterable[float], job: Iterable[float]) -> Spread:
    """Return how many times more the peer took than the job, pair by pair."""
    return Spread.of(theirs / ours for theirs, ours in zip(peer, job, strict=True))


def document(output: Path, name: str) -> dict[str, Any]:
    """Return one of the JSON files of the only run under `output`."""
    [run] = (output / "runs").iterdir()
    found: dict[str, Any] = json.loads((run / name).read_text())
    return found


def lines(output: Path, name: str) -> list[dict[str, Any]]:
    """Return the documents of one of the JSON Lines files of the only run under `output`."""
    [run] = (output / "runs").iterdir()
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def history(output: Path) -> list[dict[str, str]]:
    """Return the rows of history.csv."""
    [run] = (output / "runs").iterdir()
    return list(csv.DictReader((run / "metrics/history.csv").read_text().splitlines()))


def validation_share(output: Path) -> float | None:
    """Return validation's share of the time of the last epoch; None: a resumed run had none of its steps left."""
    last = history(output)[-1]
    seconds, rate = float(last["seconds"]), float(last["images_per_second"])
    images = sum(line["split"] == "train" for line in lines(output, "data/split.jsonl"))
    return 1 - images / rate / seconds if rate else None


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Let a benchmark take pictures and weights: by default pictures that are drawn, and the published weights."""
    parser.add_argument("--data", type=Path, help="train/ and validation/, a folder a class in each; default: drawn")
    parser.add_argument("--weights", default="imagenet", help="a file, or imagenet: from Keras's cache, or downloaded")


@contextlib.contextmanager
def pictures(options: argparse.Namespace) -> Iterator[Path]:
    """Have the pictures of `add_inputs`: a folder with train/ and validation/; 480 and 120 are drawn."""
    if options.data:
        yield options.data
        return
    with tempfile.TemporaryDirectory() as folder:
        for seed, (side, count) in enumerate((("train", 480), ("validation", 120))):
            demo_pictures.draw(Path(folder, side), count=count, seed=seed)
        yield Path(folder)


def machine() -> str:
    """Return one line: processor, cores this process may use, Python and the versions that matter."""
    cpu = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    installed = {package.metadata["Name"].replace("_", "-"): package.version for package in metadata.distributions()}
    facts = [cpu[1] if cpu else platform.machine(), f"{len(os.sched_getaffinity(0))} cores"]
    facts += [f"Python {platform.python_version()}"]
    return ", ".join(facts + [f"{name} {installed[name]}" for name in PACKAGES if name in installed])


def record(
    title: str, header: Sequence[str], rows: Iterable[Sequence[object]], *, closing: str = "", path: Path = RESULTS
) -> None:
    """Print a table, and put it into the results in the place of the section of the same title.

    The command recorded with it is the one that runs: ``python benchmarks/NAME.py ARGUMENTS``.

    Args:
        title: of the section.
        header: of the table.
        rows: of the table.
        closing: the section's last line, behind the table.
        path: of the results.
    """
    command = shlex.join(["python", os.path.relpath(sys.argv[0], RESULTS.parents[1]), *sys.argv[1:]])
    lines = [f"## {title}", "", f"`{command}`, {dt.datetime.now(tz=dt.UTC).date()}", "", machine(), ""]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in [header, ["---"] * len(header), *rows]]
    section = "\n".join([*lines, *(["", closing] if closing else [])]) + "\n"
    print(section)
    text = path.read_text() if path.exists() else PREAMBLE
    preamble, *others = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    sections = [other.rstrip() + "\n" for other in others if not other.startswith(f"## {title}\n")]
    path.write_text("\n".join([preamble.rstrip() + "\n", *sorted([*sections, section])]))
