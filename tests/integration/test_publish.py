"""A run's files are one process's, whoever wakes up late; a Job keeps to one run and one set of settings."""

from __future__ import annotations

import errno
import hashlib
import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from latest_runs import point_to
from opened_runs import checkpoints_of, open_run, pinned_run
from structlog.testing import capture_logs

from job import errors, storage
from job.config.load import Loaded, load_settings
from job.config.settings import GateSettings
from job.data import manifest
from job.evaluation.gates import Comparison, Gate, Measured
from job.runs import identity, publish
from job.runs.data import Data
from job.runs.documents import encode
from job.runs.job_record import JobRecord
from job.runs.statement import Execution
from job.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from job.runs.checkpoints import Checkpoints
    from job.runs.run import Run
    from job.storage import Store

GATE = Gate(passed=True, accuracy=0.9, min_accuracy=0.5)
NO_WORSE = GateSettings(no_worse_than_latest=0)
FILES = ("data/split.jsonl", "model/model.keras", "metrics/metrics.json")


class Held:
    """A store whose process is held up at some of its requests, until something else is done.

    Args:
        output: the store.
        at: how the object's name ends.
        meanwhile: what is done then, once.
        request: before which request it is held up.
    """

    def __init__(
        self,
        output: Store,
        at: str,
        meanwhile: Callable[[], object],
        request: Literal["write", "stat"] = "write",
    ) -> None:
        self._output = output
        self._at = at
        self._meanwhile: Callable[[], object] | None = meanwhile
        self._request = request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._output, name)

    def write(self, name: str, data: bytes | Path, *, if_generation_match: int | None = None) -> storage.ObjectInfo:
        """Write, after what is done meanwhile."""
        self._hold("write", name)
        return self._output.write(name, data, if_generation_match=if_generation_match)

    def stat(self, name: str) -> storage.ObjectInfo | None:
        """Look, after what is done meanwhile."""
        self._hold("stat", name)
        return self._output.stat(name)

    def _hold(self, request: str, name: str) -> None:
        if self._meanwhile and request == self._request and name.endswith(self._at):
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()


@pytest.fixture(params=["local", "bucket"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Return an empty output."""
    if request.param == "local":
        return storage.open_store(str(tmp_path / "out"))
    return storage.open_store(f"gs://{request.getfixturevalue('bucket')}")


def load(*arguments: str) -> Loaded:
    """Return settings of a Job's Pod."""
    return load_settings(["--output.uri", "/out", "--run.job_uid", "uid-1", *arguments], {})


def listed(*names: str) -> manifest.Manifest:
    """Return a manifest of images of these names."""
    zeros = {column: np.zeros(len(names), np.int32) for column in ("root", "label", "split", "size", "crc32c")}
    zeros |= {"generation": np.zeros(len(names), np.int64), "gzip": np.zeros(len(names), bool)}
    return manifest.Manifest(roots=("gs://b",), labels=("a",), names=list(names), **zeros)


def open_new(output: Store, *arguments: str, names: tuple[str, ...] = ("1.jpg", "2.jpg")) -> Run:
    """Return the run that a Pod opens which lists images of these names."""
    loaded = load(*arguments)
    return open_run(output, loaded, identity.identify(loaded.settings, storage.open_store, listed(*names)))


def do(run: Run, what: str) -> None:
    """Publish a run whose files hold `what`."""
    for name in FILES:
        run.write(name, f"{what} {name}".encode())
    publish.finish(run, GATE, Execution(provenance={"by": what}, seconds={}))


def whole_run(output: Store, what: str) -> None:
    """Be the Job's next Pod: take the run over and publish it, or find it published."""
    run = open_new(output)
    with checkpoints_of(run, load().settings):
        if publish.published(run, GateSettings()) is None:
            run.write_status(what.encode())
            do(run, what)
            run.write_status(f"{what} succeeded".encode())


def read(output: Store, run: Run, name: str) -> bytes:
    """Return one of the run's files."""
    found = output.read(f"runs/{run.id}/{name}")
    assert found is not None
    return found[0]


def check(output: Store, run: Run) -> str:
    """Assert that every file of a published run is the one in manifest.json, and return whose it is."""
    document = read(output, run, "manifest.json")
    published = json.loads(document)
    success = json.loads(read(output, run, "_SUCCESS"))
    assert hashlib.sha256(document).hexdigest() == success["manifest_sha256"]
    assert (run.id, published["published_at"]) == tuple(success["overview"][key] for key in ("run_id", "published_at"))
    for name, file in published["files"].items():
        assert file["sha256"] == hashlib.sha256(read(output, run, name)).hexdigest(), name
    assert {*FILES, "config.json", "provenance.json"} == set(published["files"])
    whose: str = published["provenance"]["by"]
    return whose


@pytest.mark.parametrize("at", [*FILES, "/provenance.json", "/manifest.json"])
def test_held_up_while_publishing(output: Store, at: str) -> None:
    """A Pod that is held up in any of its writes, until the Job's next one has published, changes none of its files."""
    run = open_new(Held(output, at, lambda: whole_run(output, "second")))
    with (
        pytest.raises(errors.StoppedError, match="another process has taken this run over"),
        checkpoints_of(run, load().settings),
    ):
        do(run, "first")
    run.write_status(b"first stopped")

    assert "second" == check(output, run)
    assert b"second succeeded" == read(output, run, "status.json")


@pytest.mark.parametrize("request_", ["write", "stat"])
def test_held_up_over_another_generation(output: Store, request_: Literal["write", "stat"]) -> None:
    """A Pod that meets another generation, and is held up before it learns which, does not write over a successor's."""

    def meanwhile() -> None:
        whole_run(output, "second")

    run = open_new(Held(output, FILES[-1], meanwhile, request_))
    with checkpoints_of(run, load().settings):
        output.write(f"runs/{run.id}/{FILES[-1]}", b"of the Pod before, which was late")
        with pytest.raises(errors.StoppedError):
            do(run, "first")

    assert "second" == check(output, run)


@pytest.mark.parametrize(
    ("published_at", "is_later"), [("2999-01-01T00:00:00Z", True), ("2001-01-01T00:00:00Z", False)]
)
def test_two_runs_publish_at_once(output: Store, published_at: str, is_later: bool) -> None:
    """A run published between the read and the write of latest.json stays in it if it was published later."""

    def publish_other() -> None:
        other = {"run_id": "other", "run_uri": "/other", "published_at": published_at, "gate": GATE.document()}
        output.write("latest.json", encode(other))

    run = open_new(Held(output, "latest.json", publish_other))
    with checkpoints_of(run, load().settings):
        do(run, "own")

    found = output.read("latest.json")
    assert found is not None
    assert ("other" if is_later else run.id) == json.loads(found[0])["run_id"]


def judge(output: Store, *, latest_accuracy: float) -> Gate:
    """Return the gate of a run of the accuracy 0.9, compared with what latest.json names now."""
    found = output.read("latest.json")
    numbers = {"images": 100, "accuracy": 0.9, "latest_accuracy": latest_accuracy, "interval": (0.0, 0.0)}
    comparison = Comparison(
        generation=found[1].generation if found else 0, difference=0.9 - latest_accuracy, run_id="latest", **numbers
    )
    return Gate.judge(Measured(accuracy=0.9), NO_WORSE, comparison)


def latest(output: Store) -> dict[str, Any]:
    """Return latest.json."""
    found = output.read("latest.json")
    assert found is not None
    document: dict[str, Any] = json.loads(found[0])
    return document


@pytest.mark.parametrize("better", ["this", "other"])
def test_latest_moves_after_the_comparison(output: Store, better: str) -> None:
    """A run that is published between the comparison and the move of latest.json is compared with, too.

    Another one that is published during that comparison as well is compared with again.
    """
    point_to(output, "first")
    judged: list[str] = []

    def judge_again() -> Gate:
        judged.append(latest(output)["run_id"])
        gate = judge(output, latest_accuracy=0.95 if better == "other" else 0.85)
        if len(judged) == 1:
            point_to(output, "third")
        return gate

    gate = judge(output, latest_accuracy=0.8)
    run = open_new(Held(output, "latest.json", lambda: point_to(output, "second")))
    with checkpoints_of(run, load().settings):
        for name in FILES:
            run.write(name, b"first")
        outcome = publish.finish(run, gate, Execution(provenance={"by": "first"}, seconds={}), judge=judge_again)

    assert "first" == check(output, run)
    if better == "this":
        assert ["second", "third"] == judged
        assert (run.id, 0.85) == (latest(output)["run_id"], latest(output)["gate"]["latest"]["latest_accuracy"])
        outcome.check_gate()
    else:
        assert (["second"], "third") == (judged, latest(output)["run_id"])
        with pytest.raises(errors.GateError, match=r"is 0\.9000, below the 0\.9500 of gate\.no_worse_than_latest"):
            outcome.check_gate()


def test_recorded_comparison(output: Store) -> None:
    """Later starts report the recorded comparison; without that setting they pass with a warning."""
    point_to(output, "first")
    run = open_new(output)
    with checkpoints_of(run, load().settings):
        publish.finish(run, judge(output, latest_accuracy=0.95), Execution(provenance={}, seconds={}))

    for settings, passed in (
        (NO_WORSE, False),
        (GateSettings(no_worse_than_latest=0.5), False),
        (GateSettings(), True),
    ):
        with capture_logs() as lines:
            outcome = publish.published(open_new(output), settings)
        assert outcome is not None
        assert passed is outcome.gate.passed
        assert (["latest.not_moved"] if passed else []) == [line["event"] for line in lines]
    assert "first" == latest(output)["run_id"]


@pytest.mark.parametrize("moved", [True, False])
@pytest.mark.parametrize("is_recorded", [True, False])
def test_killed_before_latest_is_moved(output: Store, moved: bool, is_recorded: bool) -> None:
    """The start that completes the publication moves latest.json only from the generation that was compared.

    It has no model to compare again: it warns, and ends with the recorded outcome.
    """

    def kill() -> None:
        raise KeyboardInterrupt

    point_to(output, "first")
    run = open_new(Held(output, "latest.json", kill))
    gate = judge(output, latest_accuracy=0.9) if is_recorded else GATE
    with pytest.raises(KeyboardInterrupt), checkpoints_of(run, load().settings):
        publish.finish(run, gate, Execution(provenance={}, seconds={}))
    if moved:
        point_to(output, "second")
    with capture_logs() as lines:
        outcome = publish.published(open_new(output), NO_WORSE)

    assert outcome is not None
    outcome.check_gate()
    may_move = is_recorded and not moved
    assert (run.id if may_move else "second" if moved else "first") == latest(output)["run_id"]
    assert ([] if may_move else ["latest.not_moved"]) == [line["event"] for line in lines]
    assert not list(output.list(f"runs/{run.id}/checkpoints"))


def test_next_pod_knows_the_files(output: Store) -> None:
    """A previous Pod's leftovers are overwritten at the first attempt, without another check of the claim."""
    run = open_new(output)
    with checkpoints_of(run, load().settings):
        run.write(FILES[0], b"first")
    index = f"runs/{run.id}/checkpoints/index.json"
    run = open_new(output)
    with checkpoints_of(run, load().settings):
        before = output.stat(index)
        run.write(FILES[0], b"second")
        assert before == output.stat(index)
    assert b"second" == read(output, run, FILES[0])


def test_files_of_the_pod_before(output: Store) -> None:
    """Files that a Pod left behind, or still writes while its successor starts, are overwritten by the successor."""
    before = open_new(output)
    before_checkpoints = checkpoints_of(before, load().settings)
    with before_checkpoints:
        before.write(FILES[0], b"first")
        before.write_status(b"first")
        run = open_new(output)
        with checkpoints_of(run, load().settings):
            before.write(FILES[1], b"first")
            before.write_status(b"first is late")
            run.write_status(b"second")
            before.write_status(b"first stopped")
            do(run, "second")

    assert "second" == check(output, run)
    assert b"second" == read(output, run, "status.json")


@pytest.mark.parametrize("ending", ["killed", "held up"])
def test_between_commit_and_success(output: Store, ending: str) -> None:
    """Once all files are written the next Pod writes none of them again: it completes the run, and so may the first."""

    def meanwhile() -> None:
        whole_run(output, "second")
        if ending == "killed":
            raise KeyboardInterrupt

    run = open_new(Held(output, "/_SUCCESS", meanwhile))
    with checkpoints_of(run, load().settings):
        if ending == "held up":
            do(run, "first")
        else:
            with pytest.raises(KeyboardInterrupt):
                do(run, "first")

    assert "first" == check(output, run)
    assert run.id == json.loads(output.read("latest.json")[0])["run_id"]
    assert not list(output.list(f"runs/{run.id}/checkpoints"))


def test_committed_manifest_that_is_gone(output: Store) -> None:
    """A commit whose manifest.json was removed or replaced is void: the run is trained again."""
    loaded = load()
    for replaced in (None, b"{}"):
        run = open_new(output)
        with checkpoints_of(run, loaded.settings) as checkpoints:
            run.write("manifest.json", b"whole")
            checkpoints.commit(hashlib.sha256(b"whole").hexdigest())
            name = f"runs/{run.id}/manifest.json"
            if replaced is None:
                output.delete(name)
            else:
                output.write(name, replaced)
            assert publish.published(run, GateSettings()) is None
        assert output.stat(f"runs/{run.id}/_SUCCESS") is None
    whole_run(output, "next")
    assert "next" == check(output, run)


def test_no_room_for_lines(output: Store) -> None:
    """A full disk while a table is written ends the run with exit 20, naming the file."""

    def lines() -> Iterator[str]:
        yield "uri\n"
        raise OSError(errno.ENOSPC, "No space left on device")

    run = open_new(output)
    with (
        checkpoints_of(run, load().settings),
        pytest.raises(errors.UnavailableError, match=r"predictions\.csv") as caught,
    ):
        run.write_lines("metrics/predictions.csv", lines())
    assert 20 == caught.value.exit_code
    assert output.stat(f"runs/{run.id}/metrics/predictions.csv") is None


def test_checkpoints_are_removed(output: Store) -> None:
    """A published run has no checkpoints any more: neither states nor data."""
    run = open_new(output)
    with checkpoints_of(run, load().settings) as checkpoints:
        checkpoints.save_data(Data(listed=listed("1.jpg"), usable=np.ones(1, bool), quarantined=[]))
        save(checkpoints)
        saved = len(list(output.list(f"runs/{run.id}/checkpoints")))
        do(run, "first")

    assert saved > 2
    assert not list(output.list(f"runs/{run.id}/checkpoints"))


def save(checkpoints: Checkpoints) -> None:
    """Save a state."""
    checkpoints.save(lambda: TrainingState().captured({"w": np.zeros(1)}, {}), now=True, wait=False)
    checkpoints.flush()


def test_checkpoints_carry_hashes(output: Store) -> None:
    """Each checkpoint has the hashes of the run's settings and data; it is not loaded where config.json has others."""
    run = open_new(output)
    config_name, index_name = (f"runs/{run.id}/{name}" for name in ("config.json", "checkpoints/index.json"))
    with checkpoints_of(run, load().settings) as checkpoints:
        save(checkpoints)
    [entry] = json.loads(output.read(index_name)[0])["checkpoints"]
    with checkpoints_of(run, load().settings) as checkpoints:
        assert checkpoints.load() is not None
    recorded = json.loads(output.read(config_name)[0])
    recorded["identity"]["data"] = "other"
    output.write(config_name, json.dumps(recorded).encode())
    with checkpoints_of(run, load().settings) as checkpoints:
        assert checkpoints.load() is None

    who = identity.identify(load().settings, storage.open_store, listed("1.jpg", "2.jpg"))
    other = identity.identify(load("--run.seed", "8").settings, storage.open_store, listed("1.jpg", "2.jpg"))
    assert who.hashes() == entry["identity"]
    assert who.hashes()["data"] == listed("1.jpg", "2.jpg").digest() == other.hashes()["data"]
    assert who.hashes()["settings"] != other.hashes()["settings"]


def test_job_is_pinned_to_what_was_compared(output: Store) -> None:
    """A Job that is killed before it has claimed a run is pinned to none."""
    open_new(output, "--run.id", "r")
    other_job = ("--run.id", "r", "--run.job_uid", "uid-2")
    with pytest.raises(errors.SettingsError, match="the data differ"):
        open_new(output, *other_job, names=("3.jpg",))
    assert output.read("jobs/uid-2.json") is None

    def be_killed() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_new(Held(output, "jobs/uid-2.json", be_killed), *other_job)
    assert recorded_run(output, "uid-2") is None
    open_new(output, *other_job)
    assert "r" == recorded_run(output, "uid-2")


def recorded_run(output: Store, job_uid: str) -> str | None:
    """Return the run that a Job works on, by its record."""
    return JobRecord(output, load("--run.job_uid", job_uid).settings.run).run_id()


def begin(run: Run) -> None:
    """Save the run's data, as a start does before its first download."""
    with checkpoints_of(run, load().settings) as checkpoints:
        checkpoints.save_data(Data(listed=listed("1.jpg", "2.jpg"), quarantined=[]))


def test_two_pods_of_a_job_begin_at_once(output: Store) -> None:
    """If two Pods of a Job list different data, the later one does not change the other's run, and stops."""
    with pytest.raises(errors.StoppedError, match="another Pod of this Job has just begun the run") as caught:
        open_new(Held(output, "jobs/uid-1.json", lambda: begin(open_new(output))), names=("3.jpg",))
    assert 75 == caught.value.exit_code
    run = open_new(Held(output, "jobs/uid-1.json", lambda: open_new(output)))
    assert run.id == pinned_run(output, load().settings).id


@pytest.mark.parametrize("flags", [(), ("--run.id", "r")])
def test_data_that_change_before_the_run_has_begun(output: Store, flags: tuple[str, ...]) -> None:
    """A Job is pinned once its data are saved; before that, its next Pod works on its own listing."""
    first = open_new(output, *flags)
    assert pinned_run(output, load(*flags).settings) is None

    second = open_new(output, *flags, names=("1.jpg", "2.jpg", "3.jpg"))

    assert (first.id == second.id) == bool(flags)
    assert second.id == recorded_run(output, "uid-1")
    expected = listed("1.jpg", "2.jpg", "3.jpg").digest()
    assert expected == json.loads(read(output, second, "config.json"))["identity"]["data"]
    begin(second)
    assert second.id == pinned_run(output, load(*flags).settings).id


def test_pinned_run_that_was_removed(output: Store) -> None:
    """A Job whose run was removed starts it again."""
    run = open_new(output)
    begin(run)
    for name in output.generations(f"runs/{run.id}"):
        output.delete(name)
    assert pinned_run(output, load().settings) is None
    assert run.id == open_new(output).id


def test_settings_of_the_job_changed(output: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Job's later Pod with other settings, weights or recipe ends with an error that names the difference."""
    weights = tmp_path / "w.h5"
    weights.write_bytes(b"1")
    begun = ("--model.weights", str(weights))
    run = open_new(output, *begun)
    index = f"runs/{run.id}/checkpoints/index.json"
    with pytest.raises(errors.SettingsError) as caught:
        checkpoints_of(run, load(*begun, "--run.seed", "8").settings)
    assert "the settings have changed since this Job began its run" in caught.value.message
    assert caught.value.message.endswith("run.seed is 8, and was 7")
    assert caught.value.remedy == "start a new Job: it will be a new run"
    checkpoints_of(run, load(*begun, "--checkpoint.interval", "8").settings)
    weights.write_bytes(b"2")
    with pytest.raises(errors.SettingsError, match=r"model\.weights is '1:[0-9a-f]{8}', and was '1:"):
        checkpoints_of(run, load(*begun).settings)
    weights.write_bytes(b"1")
    monkeypatch.setattr(identity, "RECIPE", 1000)
    with pytest.raises(errors.SettingsError, match="the recipe's version is 1000"):
        checkpoints_of(run, load(*begun).settings)
    assert output.read(index) is None  # nobody's claim was taken for it
