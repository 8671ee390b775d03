"""Two processes that train one run: undisturbed, killed, stopped, late, and with data that are wrong.

Each start of TensorFlow takes seconds, so one run is disturbed several times.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from attempts import Attempt
from digests import arrays_sha256
from light_runs import FOLDER
from runs import SMALL, draw, draw_two_classes, only_run

BATCH = 4
UNREADABLE = "validation/dark/19.png"
FLAGS = (
    *SMALL,
    *("--feature_extraction.epochs", "2", "--fine_tuning.epochs", "2", "--checkpoint.interval", "0.1"),
    *(
        "--input.max_bad_fraction",
        "0.1",
        "--augmentation.flip",
        "horizontal",
        "--feature_extraction.views",
        "2",
        "--report.label_errors",
        "true",
    ),
    *("--feature_extraction.batch_size", str(BATCH), "--fine_tuning.batch_size", str(BATCH), "--device.threads", "1"),
)


@pytest.fixture(autouse=True)
def _light(light_processes: None) -> None:
    """Make all runs light."""


@pytest.fixture(scope="session")
def flags(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Flags of a small run, but for its output; the last batch of an epoch has one image: fewer than replicas.

    The pictures are three ranges of rows; one that worker 1 reads cannot be used.
    """
    folder = tmp_path_factory.mktemp("pictures")
    draw_two_classes(folder / "train")
    for n in range(3):
        (folder / f"train/dark/{n}.jpg").unlink()
    for n in range(20):
        for label, shade in (("dark", 90), ("light", 160)):
            draw(folder / f"validation/{label}/{n:02}.png", shade=shade, seed=200 + n)
    (folder / UNREADABLE).write_bytes(b"no image")
    return (*FLAGS, "--input.uri", str(folder))


class Workers:
    """The workers of one run.

    Args:
        flags: of the run.
        output: where it is published.
    """

    def __init__(self, flags: tuple[str, ...], output: Path) -> None:
        with contextlib.ExitStack() as taken:
            sockets = [taken.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
            addresses = ",".join(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
        shared = ("--run.job_uid", "uid-1", "--workers.count", "2", "--workers.addresses", addresses)
        self._flags = (*flags, *shared, "--output.uri", str(output))

    def start(self, index: int, *more: str, **options: Any) -> Attempt:
        """Start a worker."""
        return Attempt([*self._flags, "--workers.index", str(index), *more], PYTHONPATH=str(FOLDER), **options)


@pytest.fixture
def workers(flags: tuple[str, ...], tmp_path: Path) -> Workers:
    """The workers of a run to a new folder."""
    return Workers(flags, tmp_path)


@pytest.fixture(scope="session")
def published(flags: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Attempt, Attempt]:
    """The folder of a run that nothing disturbed, and its workers."""
    output = tmp_path_factory.mktemp("published")
    workers = Workers(flags, output)
    with workers.start(0) as first, workers.start(1) as second:
        assert [0, 0] == [first.wait(), second.wait()], (first.events[-1], second.events[-1])
    return only_run(output), first, second


def test_both_stages(published: tuple[Path, Attempt, Attempt]) -> None:
    """Both workers read and train both stages with the same results, and worker 0 alone publishes the run."""
    folder, first, second = published
    results = [
        [(event["stage"], event["loss"], event["val_loss"]) for event in worker.named("epoch.finished")]
        for worker in (first, second)
    ]
    train = len([line for line in (folder / "data/split.jsonl").read_text().splitlines() if '"train"' in line])

    assert 4 == len(results[0])
    assert results[0] == results[1]
    assert 0 < train % BATCH < 4
    assert [1, 0] == [worker.names().count("run.published") for worker in (first, second)]
    assert ["run.succeeded"] * 2 == [worker.events[-1]["event"] for worker in (first, second)]
    assert [2, 2] == [worker.named("device.configured")[0]["replicas"] for worker in (first, second)]
    assert [37, 32] == [worker.named("images.read")[0]["images"] for worker in (first, second)]
    assert [0, 1] == [len(worker.named("image.quarantined")) for worker in (first, second)]
    [unusable] = (folder / "data/quarantine.jsonl").read_text().splitlines()
    assert UNREADABLE in unusable


def test_same_bits_as_two_devices(
    flags: tuple[str, ...], published: tuple[Path, Attempt, Attempt], tmp_path: Path
) -> None:
    """Two workers end in the bits of two devices of one process."""
    program = (str(Path(__file__).with_name("two_devices.py")),)
    with Attempt([*flags, "--output.uri", tmp_path], program=program, PYTHONPATH=str(FOLDER)) as attempt:
        assert 0 == attempt.wait(), attempt.events[-1]

    model = "model/model.keras"
    assert arrays_sha256(published[0] / model) == arrays_sha256(only_run(tmp_path) / model)


@pytest.mark.long
def test_disturbed(workers: Workers, published: tuple[Path, Attempt, Attempt], tmp_path: Path) -> None:
    """A run whose workers are killed, stopped and ended in turn ends in the bits of the undisturbed one.

    The other one starts again in its own process, keeps its cache, and resumes from the last checkpoint.
    """
    ends = {
        "killed": (signal.SIGKILL, ("fine_tuning", 0, 2)),
        "leader killed": (signal.SIGKILL, ("fine_tuning", 0, 4)),
        "stopped": (signal.SIGSTOP, ("fine_tuning", 1, 2)),
        "terminated": (signal.SIGTERM, ("fine_tuning", 1, 4)),
        "leader stopped": (signal.SIGSTOP, ("fine_tuning", 1, 6)),
        "other terminated": (signal.SIGTERM, ("fine_tuning", 1, 7)),
    }
    with contextlib.ExitStack() as stack:
        leader = stack.enter_context(workers.start(0, signal_at=ends["leader killed"]))
        other = stack.enter_context(workers.start(1))
        assert other.wait_for("cache.opened")
        other.process.kill()  # in its pass over the data
        assert leader.wait_for("workers.lost")
        other = stack.enter_context(workers.start(1, signal_at=ends["killed"]))
        assert leader.wait_for("workers.lost", 2)
        other = stack.enter_context(workers.start(1, signal_at=ends["stopped"]))
        other.wait_for("workers.lost")
        leader_2 = stack.enter_context(workers.start(0, signal_at=ends["terminated"]))
        leader_2.wait_for("workers.lost")
        other.process.kill()
        other_2 = stack.enter_context(workers.start(1, signal_at=ends["other terminated"]))
        assert 75 == leader_2.wait(), leader_2.events[-1]
        other_2.wait_for("workers.lost")
        leader_3 = stack.enter_context(workers.start(0, signal_at=ends["leader stopped"]))
        assert other_2.wait_for("workers.lost", 2)
        leader_3.process.kill()
        leader_4 = stack.enter_context(workers.start(0, counting=True))
        assert 75 == other_2.wait(), other_2.events[-1]
        assert leader_4.wait_for("workers.lost")
        other_3 = stack.enter_context(workers.start(1))
        assert [0, 0] == [leader_4.wait(), other_3.wait()], (leader_4.events[-1], other_3.events[-1])

    assert -signal.SIGKILL == leader.process.returncode
    assert leader.named("cache.opened")[-1]["encoded_found"] > 0
    assert ("fine_tuning", 1, 5) == leader_3.loaded()  # the step in which the workers agreed to stop
    [record] = [json.loads(path.read_bytes()) for path in (tmp_path / "jobs").iterdir()]
    assert 75 in [attempt.get("exit_code") for attempt in record["attempts"]]
    model = "model/model.keras"
    assert arrays_sha256(published[0] / model) == arrays_sha256(only_run(tmp_path) / model)


def test_worker_that_never_comes(workers: Workers) -> None:
    """A worker names the missing one, ends with 20 after the limit, and with 75 after a signal while it waits."""
    with workers.start(1, "--device.stall_minutes", "0.1") as second:
        assert 20 == second.wait(), second.events[-1]
    with workers.start(0) as first:
        assert first.wait_for("workers.waiting")
        assert first.stop(signal.SIGTERM) < 60
    for attempt in (first, second):
        assert attempt.named("workers.waiting")[0]["missing"]
    assert (75, "Stopped") == (first.process.returncode, first.events[-1]["reason"])
    assert "Stall" == second.events[-1]["reason"]


def test_error_of_worker_0(workers: Workers, tmp_path: Path) -> None:
    """The other workers end with the exit code of worker 0 if a further start of it would not succeed."""
    with workers.start(0, "--input.uri", str(tmp_path / "nothing")) as first, workers.start(1) as second:
        assert [3, 3] == [first.wait(), second.wait()], (first.events[-1], second.events[-1])
