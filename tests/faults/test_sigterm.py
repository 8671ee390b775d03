"""SIGTERM at any time, SIGHUP: the process ends with 75 within 8 seconds, and the next start ends in the same bits."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import prerequisites
import pytest
from attempts import Attempt
from digests import arrays_sha256
from held import Hold, cache_flags, damage, sides
from light_runs import VERIFIED
from runs import ONE_STAGE, only_run

from job import storage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fault_proxy import Proxy

SIGTERM_BIT = 1 << (signal.SIGTERM - 1)

"""Starts a program as the first process of a container is started."""


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait for what no event tells."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def is_caught(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM already: before that, a signal is the interpreter's."""
    [caught] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt")]
    return bool(int(caught.split()[1], 16) & SIGTERM_BIT)


def children(pid: int) -> list[int]:
    """Return the processes that a process's first thread has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Phases:
    """Waits until a start of the job is in a phase: each method is one, in the order of a run.

    Args:
        proxy: before the buckets of input and output.
        output: where the run is published.
        cache: the folder of its cache.
    """

    def __init__(self, proxy: Proxy, output: str, cache: Path) -> None:
        self._proxy = proxy
        self._output = output
        self._cache = cache
        self.hold = Hold(lambda _: False)

    def starting(self, attempt: Attempt) -> None:
        """The handler is there, and the job's own modules are not imported yet."""
        wait_until(lambda: is_caught(attempt.process.pid))
        assert not attempt.events

    def listing(self, _: Attempt) -> None:
        """The store is asked for the pictures' names, and has not answered."""
        self._hold_back(lambda request: "/o?" in request.path and "prefix=in" in request.path)

    def importing_tensorflow(self, attempt: Attempt) -> None:
        """TensorFlow's libraries are being loaded."""
        wait_until(lambda: "tensorflow" in Path(f"/proc/{attempt.process.pid}/maps").read_text())
        assert "device.configured" not in attempt.names()

    def pass_over_the_data(self, _: Attempt) -> None:
        """Some of the pictures are here."""
        count = itertools.count()
        self._hold_back(lambda request: request.is_bulk and next(count) == 20)

    def stage_1(self, attempt: Attempt) -> None:
        """The step of stage 1 is being compiled."""
        assert attempt.wait_for("stage.started")["stage"] == "feature_extraction"

    def between_the_stages(self, attempt: Attempt) -> None:
        """Stage 1 is finished."""
        assert attempt.wait_for("stage.finished")["stage"] == "feature_extraction"

    def stage_2(self, attempt: Attempt) -> None:
        """The last batch of an epoch of stage 2 is being read."""
        self._hold_back_image(attempt, "train")

    def validation(self, attempt: Attempt) -> None:
        """A batch of the validation images is being read in stage 2."""
        self._hold_back_image(attempt, "validation")

    def evaluation(self, attempt: Attempt) -> None:
        """The scoring of the kept model begins."""
        assert attempt.wait_for("model.chosen")

    def export(self, attempt: Attempt) -> None:
        """The process that will score the exported model is started; the model is being saved."""
        assert attempt.wait_for("model.chosen")
        wait_until(lambda: children(attempt.process.pid))

    def verification(self, _: Attempt) -> None:
        """The exported model is being scored."""
        wait_until(lambda: list(self._cache.glob("*/model/labels.txt")))  # the last file of the export

    def upload(self, attempt: Attempt) -> None:
        """A file of the model is being sent."""
        assert attempt.wait_for("model.verified")
        self._hold_back(lambda request: "/upload/" in request.path)

    def _hold_back(self, which: Callable[[object], bool]) -> None:
        self._proxy.fault = self.hold = Hold(which)
        assert self.hold.reached.wait(120)

    def _hold_back_image(self, attempt: Attempt, side: str) -> None:
        stage = attempt.wait_for("stage.started")
        assert stage["stage"] == "fine_tuning"
        uri = sides(self._output)[side][-1]
        damage(self._cache, uri)
        folder, _, name = uri.rpartition("/")
        image = f"{folder.rpartition('/')[2]}/{name}"
        self._hold_back(lambda request: request.is_bulk and request.object.endswith(image))


PHASES = [name for name in vars(Phases) if not name.startswith("_")]


@pytest.mark.alone
def test_in_every_phase(uploaded: tuple[str, ...], bucket: str, undisturbed: str, proxy: Proxy, tmp_path: Path) -> None:
    """One run, stopped in each of its phases in turn, from and to a bucket: 75 within 8 seconds, and the same bits."""
    output, cache = f"gs://{bucket}/out", tmp_path / "cache"
    run = [*uploaded, "--output.uri", output]
    codes, seconds, starts = {}, {}, {}
    phases = Phases(proxy, output, cache)
    for phase in PHASES:
        room = cache_flags(uploaded, cache, in_stage_2=phase in PHASES[PHASES.index("validation") :])
        with Attempt([*run, *room], **{VERIFIED: "1"}) as attempt:
            getattr(phases, phase)(attempt)
            attempt.process.send_signal(signal.SIGTERM)
            phases.hold.released.set()
            started = time.monotonic()
            codes[phase] = attempt.wait()
            seconds[phase] = round(time.monotonic() - started, 1)
        starts[phase] = attempt
    with Attempt(run) as attempt:
        assert 0 == attempt.wait(), attempt.events[-1]
    starts["the end"] = attempt
    store = storage.open_store(output)
    [name] = [found.name for found in store.list("runs") if found.name.endswith("model.keras")]
    (tmp_path / "model.keras").write_bytes(store.read(name)[0])

    assert dict.fromkeys(PHASES, 75) == codes
    assert max(seconds.values()) < 8, seconds
    trained = [phase for phase, start in starts.items() if "stage.first_step" in start.names()]
    assert "evaluation" == trained[-1]  # what comes after it finds both stages done
    assert starts["the end"].loaded() == ("fine_tuning", 2, 0)
    assert undisturbed == arrays_sha256(tmp_path / "model.keras")


def test_in_stage_2_repeats_no_step(flags: tuple[str, ...], undisturbed: str, tmp_path: Path) -> None:
    """After a signal in the middle of an epoch the next start takes the very next step."""
    run = [*flags, "--output.uri", tmp_path, "--checkpoint.interval", "1000"]
    here = ("fine_tuning", 1, 3)
    with Attempt(run, signal_at=(signal.SIGTERM, here)) as attempt:
        assert 75 == attempt.wait(), attempt.events[-1]
    with Attempt(run, counting=True) as following:
        assert 0 == following.wait(), following.events[-1]
    stopped = attempt.events[-1]
    [steps] = {event["steps"] for event in attempt.events if "steps" in event}

    assert ("run.stopped", "WARNING") == (stopped["event"], stopped["severity"])
    assert "stopped by SIGTERM; the state is saved" in stopped["message"]
    assert here == attempt.steps()[-1]
    assert here == following.loaded()
    assert [("fine_tuning", 1, step) for step in range(4, steps + 1)] == following.steps()
    assert undisturbed == arrays_sha256(only_run(tmp_path) / "model/model.keras")


class Terminal:
    """A terminal that is the controlling one of what is started in it: closing it is what ends a session.

    Attributes:
        shown: what was written to it so far.
    """

    def __init__(self) -> None:
        self.shown = b""
        self._master, self._slave = pty.openpty()

    def start(self, arguments: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        """Start the job in the foreground."""
        process = subprocess.Popen(
            [sys.executable, "-m", "job", "run", *map(str, arguments)],
            stdin=self._slave,
            stderr=self._slave,
            env=os.environ | {"TERM": "xterm", "NO_COLOR": "1"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # one system call
        )
        os.close(self._slave)
        return process

    def read_until(self, text: bytes) -> None:
        """Read what is written to it until a text is there."""
        while text not in self.shown:
            self.shown += os.read(self._master, 2**16)

    def close(self) -> None:
        """Close it: the kernel sends SIGHUP."""
        os.close(self._master)


def test_terminal_that_is_closed(flags: tuple[str, ...], undisturbed: str, tmp_path: Path) -> None:
    """A run whose terminal is closed saves its state without a place to log to, and the next start resumes."""
    run = [*flags, "--output.uri", tmp_path, "--checkpoint.interval", "1000"]
    terminal = Terminal()
    with terminal.start([*run, "--log.level", "debug"]) as process:
        terminal.read_until(b"step.taken               stage=fine_tuning")
        terminal.close()
        assert 75 == process.wait(60)
    with Attempt(run) as following:
        assert 0 == following.wait(), following.events[-1]

    loaded = following.loaded()
    assert loaded
    assert ("fine_tuning", True) == (loaded[0], loaded > ("fine_tuning", 0, 0))
    assert undisturbed == arrays_sha256(only_run(tmp_path) / "model/model.keras")


def test_nohup(flags: tuple[str, ...], tmp_path: Path) -> None:
    """A run that was started with nohup outlives its terminal."""
    with Attempt([*flags, "--output.uri", tmp_path, *ONE_STAGE], within=("nohup",)) as attempt:
        attempt.wait_for("stage.first_step")
        attempt.process.send_signal(signal.SIGHUP)
        assert 0 == attempt.wait(), attempt.events[-1]


def test_second_signal(flags: tuple[str, ...], tmp_path: Path) -> None:
    """A second signal ends the process at once, also with 75: the step under way is not waited for."""
    with Attempt([*flags, "--output.uri", tmp_path]) as attempt:
        attempt.wait_for("stage.started", 2)
        attempt.process.send_signal(signal.SIGINT)
        attempt.stop(signal.SIGTERM)  # another one: two of a kind may come as one
    assert 75 == attempt.process.returncode
    assert "run.stopped" not in attempt.names()


def test_first_process_of_a_container(flags: tuple[str, ...], tmp_path: Path) -> None:
    """As PID 1, for which the system has no default action, the job is stopped by SIGTERM like any other process."""
    if reason := prerequisites.reason_to_skip("root, with PID namespaces"):
        pytest.skip(reason)
    run = [*flags, "--output.uri", tmp_path, "--fine_tuning.epochs", "200"]
    with Attempt(run, within=prerequisites.UNSHARE) as attempt:
        attempt.wait_for("stage.first_step", 2)
        [first] = children(attempt.process.pid)
        status = Path(f"/proc/{first}/status").read_text()
        os.kill(first, signal.SIGTERM)
        assert 75 == attempt.wait(), attempt.events[-1]

    [pids] = [line.split()[1:] for line in status.splitlines() if line.startswith("NSpid")]
    assert [str(first), "1"] == pids
    assert "stopped by SIGTERM; the state is saved" in attempt.events[-1]["message"]
