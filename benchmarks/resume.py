"""Never lose work: what it costs.

    python benchmarks/resume.py                                    three rounds; some 10 minutes on two cores
    python benchmarks/resume.py --rounds 1 --images 40 --image_size 96 --epochs 2

Pictures from a local folder, ImageNet weights, and an emulated bucket for the output. Measured are

- what saving costs: the epochs of stage 2 between the end of the first and the end of the last, validation and saving
  counted, of runs that save at the default interval and of runs that do not save at all, in turn, epoch by epoch. The
  emulator uses the same processor, so its time is reported. Both copy the state at the end of an epoch, to go back
  to it should a loss not be finite;
- signal to exit: runs stopped by SIGTERM in each of their phases in turn, each start resuming the one before, with
  a cache folder that outlives them as on a volume;
- the steps that are taken twice after a signal in stage 2: the last before it and the first after it are compared;
- the seconds from that start to the end of its first step, which is compiled again, beyond those of a process that does
  nothing but import TensorFlow and Keras.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import itertools
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from attempts import Attempt

from job.storage import emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BUCKET = "trained"
PEER = "import time, tensorflow, keras; print('ready at', time.time())"

PROGRAM = """
import json, sys
from job import __main__ as program
from job.runs import checkpoints as checkpoint; from job.commands import cli
from job.observability.progress import Listener

class Phases(Listener):
    def on_advance(self, phase):
        if phase.name == "ingest" and phase.done and not phase.ended:
            print(json.dumps({"message": "pass.advanced"}), file=sys.stderr, flush=True)

def listen(settings, listen=cli.listen):
    progress = listen(settings)
    progress.subscribe(Phases())
    return progress

cli.listen = listen
if sys.argv.pop(1) == "unsaved":
    checkpoint.Checkpoints.save = lambda self, capture, *, now, wait: None
sys.exit(program.main())
"""
"""The job, which also reports the progress of the pass."""


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


def start(arguments: Sequence[str | Path], *, saving: bool = True) -> Attempt:
    """Start the job; unless `saving`, its state is never saved."""
    return Attempt(arguments, program=("-c", PROGRAM, "saved" if saving else "unsaved"), counting=True)


def reach_event(attempt: Attempt, name: str, **facts: Any) -> dict[str, Any]:
    """Wait for an event, and return it."""
    found = attempt.wait_for(name, **facts)
    assert found, f"there was no {name}: {attempt.events[-1:]}"
    return found


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
            with start(arguments, saving=saving) as attempt:
                reach_event(attempt, "stage.finished")
                ends = [at(line) for line in attempt.named("epoch.finished")]
                saved = attempt.named("checkpoint.saved")
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


# Stopping and resuming


def measure_stopping(options: argparse.Namespace, pictures: Path, scratch: Path) -> list[list[object]]:
    """Stop runs in each of their phases, and measure how the next start resumes."""
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
            with start(arguments) as attempt:
                reach(attempt, cache)
                seconds[phase].append(attempt.stop(signal.SIGTERM))
                assert attempt.process.returncode == 75, f"exit {attempt.process.returncode}: {attempt.events[-1:]}"
            print(f"round {number + 1}: {phase}: {seconds[phase][-1]:.2f} s", file=sys.stderr)
            if phase == STAGE_2:
                last_step = attempt.named("step.taken")[-1]["step"]
            if phase == AFTER_STAGE_2:
                first = reach_event(attempt, "stage.first_step")
                twice.append(last_step - (first["step"] - 1))
                resumed.append(at(first) - attempt.began)
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
    """Wait for a condition that no event reports."""
    while not condition():
        time.sleep(0.002)


def reach_import(attempt: Attempt, _: Path) -> None:
    """Wait until TensorFlow's libraries are being loaded."""
    wait_until(lambda: "tensorflow" in Path(f"/proc/{attempt.process.pid}/maps").read_text())


def reach_pass(attempt: Attempt, _: Path) -> None:
    """Wait until the first pictures are here."""
    reach_event(attempt, "pass.advanced")


def reach_stage_1(attempt: Attempt, _: Path) -> None:
    """Wait until stage 1 compiles its step: its steps are over in a moment."""
    reach_event(attempt, "stage.started", stage="feature_extraction")


def reach_stage_2(attempt: Attempt, _: Path) -> None:
    """Wait until the second step of stage 2 begins."""
    reach_event(attempt, "stage.first_step", stage="fine_tuning")


def reach_validation(attempt: Attempt, _: Path) -> None:
    """Wait until the last step of stage 2 is taken."""
    steps = reach_event(attempt, "step.taken", stage="fine_tuning")["steps"]
    reach_event(attempt, "step.taken", stage="fine_tuning", step=steps)


def reach_evaluation(attempt: Attempt, _: Path) -> None:
    """Wait until the kept model is scored."""
    reach_event(attempt, "model.chosen")


def reach_export(attempt: Attempt, _: Path) -> None:
    """Wait until the process is started that will score the exported model."""
    reach_event(attempt, "model.chosen")
    pid = attempt.process.pid
    wait_until(Path(f"/proc/{pid}/task/{pid}/children").read_text)


def reach_verification(attempt: Attempt, cache: Path) -> None:
    """Wait until the exported model is scored."""
    reach_event(attempt, "model.chosen")
    wait_until(lambda: list(cache.glob("*/model/labels.txt")))  # the last file of the export


def reach_upload(attempt: Attempt, _: Path) -> None:
    """Wait until the model is sent."""
    reach_event(attempt, "model.verified")


STAGE_2, AFTER_STAGE_2 = "a step of stage 2", "validation"
PHASES: dict[str, Callable[[Attempt, Path], None]] = {
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
