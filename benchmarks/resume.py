"""Never lose work: what it costs.

    python benchmarks/resume.py                                    three rounds; some 10 minutes on two cores
    python benchmarks/resume.py --rounds 1 --images 40 --image_size 96 --epochs 2

Pictures from a local folder, ImageNet weights, and an emulated bucket for the output. Measured are

- what saving costs: the epochs of stage 2 between the end of the first and the end of the last, validation and saving
  counted, of runs that save at the default interval and of runs that do not save at all, in turn, epoch by epoch. The
  emulator's time comes from the same processor, so it is told. Both copy the state at the end of an epoch, to go back
  to it should a loss not be finite;
- signal to exit: runs stopped by SIGTERM in each of their phases in turn, each start going on from the one before, with
  a cache folder that outlives them as on a volume;
- the steps that are taken twice after a signal in stage 2: the last before it and the first after it are compared;
- the seconds from that start to the end of its first step, which is compiled anew, beyond those of a process that does
  nothing but import TensorFlow and Keras.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import harness

from job import emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BUCKET = "trained"
PEER = "import time, tensorflow, keras; print('ready at', time.time())"

PROGRAM = """
import json, sys
from job import __main__ as program
from job import checkpoint, cli
from job.progress import Listener

def tell(message, **facts):
    print(json.dumps({"message": message, **facts}), flush=True)

class Phases(Listener):
    def on_advance(self, phase):
        if phase.name == "ingest" and phase.done and not phase.ended:
            tell("pass.advanced")
        if phase.ended and "step" in phase.facts:
            tell("steps.left", step=phase.facts["step"])

def listen(settings, listen=cli.listen):
    progress = listen(settings)
    progress.subscribe(Phases())
    return progress

cli.listen = listen
if sys.argv.pop(1) == "unsaved":
    checkpoint.Checkpoints.after_step = lambda self, capture, *, always: None
sys.exit(program.main())
"""
"""The job, which also tells how the pass advances, and the last step that an epoch came to, however it was left."""


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_inputs(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=60, help="of each class on each side, for runs that are stopped")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=3, help="for what saving costs: all but the first are measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, harness.pictures(options) as pictures, bucket() as emulator_pid:
        rows = measure_saving(options, pictures, emulator_pid)
        rows += measure_stopping(options, pictures, Path(scratch))
    harness.record("Never lose work: what it costs", ["", "", "reach"], rows)


@contextlib.contextmanager
def bucket() -> Iterator[int]:
    """Run an emulator with an empty bucket, which the processes started here use; yield its process."""
    with emulator.running() as running:
        emulator.create_bucket(running.url, BUCKET)
        os.environ["STORAGE_EMULATOR_HOST"] = running.url
        yield running.pid


class Start:
    """One start of the job, whose log is read while it is written. Use it as a context manager.

    Args:
        arguments: flags of ``finetune run``.
        saving: whether the state is saved.

    Attributes:
        began: when it was started, as `time.time` has it.
        lines: of its log so far.
    """

    def __init__(self, arguments: Sequence[str | Path], *, saving: bool = True) -> None:
        command = [sys.executable, "-c", PROGRAM, "saved" if saving else "unsaved", "run", *map(str, arguments)]
        self.lines: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._ended = False
        self.began = time.time()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def wait_for(self, name: str, **facts: object) -> dict[str, Any]:
        """Wait for an event with these facts, and return the first."""
        with self._changed:
            self._changed.wait_for(lambda: self.named(name, **facts) or self._ended)
        found = self.named(name, **facts)
        assert found, f"there was no {name}: {self.lines[-1:]}"
        return found[0]

    def named(self, name: str, **facts: object) -> list[dict[str, Any]]:
        """Return the events of a name, with these facts, so far."""
        return [line for line in list(self.lines) if line["message"] == name and facts.items() <= line.items()]

    def stop(self) -> float:
        """Send SIGTERM, and return the seconds to the end of the process."""
        started = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait()
        seconds = time.perf_counter() - started
        self._reader.join()
        assert code == 75, f"exit {code}: {self.lines[-1:]}"
        return seconds

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(b"{"):  # note: libraries in C write others
                with self._changed:
                    self.lines.append(json.loads(line))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def at(line: dict[str, Any]) -> float:
    """Return when a line was written, as `time.time` has it."""
    return dt.datetime.fromisoformat(line["time"]).timestamp()


# What saving costs


def measure_saving(options: argparse.Namespace, pictures: Path, emulator_pid: int) -> list[list[object]]:
    """Train with and without saving in turn, and compare the epochs."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    saves: list[float] = []
    emulating: list[float] = []
    for number in range(options.rounds):
        for saving in (False, True):
            arguments = flags(options, pictures, f"cost-{number}-{saving}")
            arguments += ["--feature_extraction.epochs", "0", "--fine_tuning.epochs", str(options.epochs)]
            before = cpu_seconds(emulator_pid)
            with Start([*arguments, "--log.level", "debug"], saving=saving) as start:
                start.wait_for("stage.finished")
                ends = [at(line) for line in start.named("epoch.finished")]
                saved = start.named("checkpoint.saved")
            saves += [line["seconds"] for line in saved]
            emulating += [(cpu_seconds(emulator_pid) - before) / len(saved)] if saved else []
            seconds[saving] += [end - begin for begin, end in itertools.pairwise(ends)]
            print(f"round {number + 1}: saving {saving}: {seconds[saving][-1]:.2f} s an epoch", file=sys.stderr)
    more = harness.Spread.of(
        100 * (saved / unsaved - 1) for unsaved, saved in zip(seconds[False], seconds[True], strict=True)
    )
    epoch = f"an epoch of stage 2 at {options.image_size} px"
    return [
        [f"{epoch} without saving: seconds", harness.Spread.of(seconds[False]), ""],
        ["the same with saving: seconds", harness.Spread.of(seconds[True]), ""],
        ["saving, in percent of an epoch", more, "< 3"],
        ["a save, beside the next steps: seconds", harness.Spread.of(saves), ""],
        ["the emulator's processor time for a save: seconds", harness.Spread.of(emulating), ""],
    ]


def flags(options: argparse.Namespace, data: Path, name: str) -> list[str | Path]:
    """Return the flags of a run."""
    arguments = ["--input.uri", data, "--output.uri", f"gs://{BUCKET}/{name}", "--model.weights", options.weights]
    return [*arguments, "--model.image_size", str(options.image_size)]


# Stopping, and going on


def measure_stopping(options: argparse.Namespace, pictures: Path, scratch: Path) -> list[list[object]]:
    """Stop runs in each of their phases, and see how the next start goes on."""
    data = scratch / "in"
    copy(pictures, data, options.images)
    seconds: dict[str, list[float]] = {phase: [] for phase in PHASES}
    twice, peers, resumed, steps = [], [], [], []
    for number in range(options.rounds):
        cache = scratch / f"cache-{number}"
        arguments = flags(options, data, f"stopped-{number}")
        arguments += ["--feature_extraction.epochs", "1", "--fine_tuning.epochs", "1", "--cache.dir", cache]
        last_step = 0
        for phase, reach in PHASES.items():
            if phase == AFTER_STAGE_2:
                peers.append(import_tensorflow())
            with Start(arguments) as start:
                reach(start, cache)
                seconds[phase].append(start.stop())
            print(f"round {number + 1}: {phase}: {seconds[phase][-1]:.2f} s", file=sys.stderr)
            if phase == STAGE_2:
                last_step = start.named("steps.left")[-1]["step"]
            if phase == AFTER_STAGE_2:
                first = start.wait_for("stage.first_step")
                twice.append(last_step - (first["step"] - 1))
                resumed.append(at(first) - start.began)
                steps.append(first["seconds"])
    slowest = max(PHASES, key=lambda phase: max(seconds[phase]))
    beyond = [all_of_it - peer for all_of_it, peer in zip(resumed, peers, strict=True)]
    return [
        *(
            [f"signal to exit at {options.image_size} px, {phase}: seconds", harness.Spread.of(seconds[phase]), ""]
            for phase in PHASES
        ),
        [f"signal to exit, the longest of all ({slowest}): seconds", f"{max(seconds[slowest]):.3g}", "< 8"],
        ["steps taken twice after a signal in stage 2", " / ".join(map(str, twice)), "0"],
        ["importing TensorFlow and Keras, alone: seconds", harness.Spread.of(peers), ""],
        ["start to the end of the first resumed step: seconds", harness.Spread.of(resumed), ""],
        ["beyond the import: seconds", harness.Spread.of(beyond), ""],
        ["of these: the step, with its compilation", harness.Spread.of(steps), ""],
    ]


def copy(source: Path, target: Path, images: int) -> None:
    """Copy the first pictures of each folder."""
    for path in sorted(source.glob("*/*")):
        copied = target / path.relative_to(source)
        copied.mkdir(parents=True)
        for picture in sorted(path.iterdir())[:images]:
            shutil.copyfile(picture, copied / picture.name)


def import_tensorflow() -> float:
    """Return the seconds from the start of a process until it has imported TensorFlow and Keras."""
    started = time.time()
    [line] = [line for line in harness.run([sys.executable, "-c", PEER]).output.splitlines() if "ready at" in line]
    return float(line.split()[-1]) - started


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for what no event tells."""
    while not condition():
        time.sleep(0.002)


def reach_import(start: Start, _: Path) -> None:
    """Wait until TensorFlow's libraries are being loaded."""
    wait_until(lambda: "tensorflow" in Path(f"/proc/{start.process.pid}/maps").read_text())


def reach_pass(start: Start, _: Path) -> None:
    """Wait until the first pictures are here."""
    start.wait_for("pass.advanced")


def reach_stage_1(start: Start, _: Path) -> None:
    """Wait until stage 1 compiles its step: its steps are over in a moment."""
    start.wait_for("stage.started", stage="feature_extraction")


def reach_stage_2(start: Start, _: Path) -> None:
    """Wait until the second step of stage 2 begins."""
    start.wait_for("stage.first_step", stage="fine_tuning")


def reach_validation(start: Start, _: Path) -> None:
    """Wait until the last step of stage 2 is taken."""
    start.wait_for("steps.left")


def reach_evaluation(start: Start, _: Path) -> None:
    """Wait until the kept model is scored."""
    start.wait_for("model.chosen")


def reach_export(start: Start, _: Path) -> None:
    """Wait until the process is started that will score the exported model."""
    start.wait_for("model.chosen")
    pid = start.process.pid
    wait_until(Path(f"/proc/{pid}/task/{pid}/children").read_text)


def reach_verification(start: Start, cache: Path) -> None:
    """Wait until the exported model is scored."""
    start.wait_for("model.chosen")
    wait_until(lambda: list(cache.glob("*/model/labels.txt")))  # the last file of the export


def reach_upload(start: Start, _: Path) -> None:
    """Wait until the model is sent."""
    start.wait_for("model.verified")


STAGE_2, AFTER_STAGE_2 = "a step of stage 2", "validation"
PHASES: dict[str, Callable[[Start, Path], None]] = {
    "importing TensorFlow": reach_import,
    "pass over the data": reach_pass,
    "stage 1": reach_stage_1,
    STAGE_2: reach_stage_2,
    AFTER_STAGE_2: reach_validation,
    "evaluation": reach_evaluation,
    "export": reach_export,
    "verification": reach_verification,
    "upload": reach_upload,
}
"""Phases in the order of a run -> what waits until a start is in it."""


if __name__ == "__main__":
    main()
