"""The command `finetune plan`."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import api_server
import pytest
from listed_inputs import put
from runs import Facts, tree

from job.commands import plan
from job.errors import AccessError, DataError, SettingsError
from job.observability.progress import Progress
from job.watch import cronjob

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from api_server import ApiServer


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    """Return the flags for a folder with two classes, and an output that does not exist."""
    put(tmp_path / "in", [f"{label}/{number}.jpg" for label in ("cats", "dogs") for number in range(5)])
    return ["--input.uri", str(tmp_path / "in"), "--output.uri", str(tmp_path / "out")]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """Return the API server of the Pod that the command runs in."""
    with api_server.running() as running:
        start = cronjob.start
        monkeypatch.setattr(cronjob, "start", lambda name, run: start(name, run, connect=running.connect))
        yield running


def run(*arguments: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Execute the command, and return its exit code and the facts of its events."""
    listeners = {name: Facts(name) for name in ("run.planned", "job.created", "job.exists")}
    code = plan.parse(arguments).execute(Progress(list(listeners.values())))
    return code, {name: [dict(facts) for facts in one.seen] for name, one in listeners.items()}


def test_new_run_is_work(places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shell gets 10, a person a sentence, and the output stays as it was."""
    before = tree(tmp_path)

    code, events = run(*places)

    assert 10 == code
    assert capsys.readouterr().out.startswith(f"work: {tmp_path}/out/runs/in-")
    [facts] = events["run.planned"]
    assert (True, "new") == (facts["work"], facts["state"])
    assert before == tree(tmp_path)


def test_json(places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program gets one document; further pictures are another run."""
    assert 10 == run("--json", *places)[0]
    first = json.loads(capsys.readouterr().out)
    put(tmp_path / "in", ["cats/more.jpg"])
    assert 10 == run("--json", *places)[0]
    second = json.loads(capsys.readouterr().out)

    assert ("new", True, None) == (first["state"], first["work"], first["job"])
    assert first["run_id"] != second["run_id"]


def test_job_is_created(places: list[str], server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    """In a Pod work is started, and the Pod ends with 0; its log alone reports it."""
    code, events = run("--create-job", "finetune", *places)

    assert 0 == code
    [facts] = events["job.created"]
    assert [facts["job"]] == list(server.jobs)
    assert facts["run_id"] == server.jobs[facts["job"]]["metadata"]["annotations"]["finetune/run-id"]
    assert "" == capsys.readouterr().out


def test_job_that_exists(places: list[str], server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A run whose Job is under way, or has failed, is not started again; the warning says how to try again."""
    run("--create-job", "finetune", *places)

    code, events = run("--create-job=finetune", "--json", *places)

    [facts] = events["job.exists"]
    assert (0, 1) == (code, len(server.jobs))
    assert f"kubectl delete job {facts['job']}" in facts["remedy"]
    assert {"name": facts["job"], "created": False} == json.loads(capsys.readouterr().out)["job"]


def test_refusal_is_no_success(places: list[str], server: ApiServer) -> None:
    """A Pod that cannot create the Job does not end with 0: there is work, and nobody does it."""
    server.refusals = {"POST": (403, "quota")}

    with pytest.raises(AccessError, match="quota"):
        run("--create-job", "finetune", *places)


def test_input_that_is_no_data(tmp_path: Path) -> None:
    """What would end a run with 3 ends the plan with 3: no GPU is started to find it out."""
    put(tmp_path / "in", ["cats/1.jpg"])

    with pytest.raises(DataError):
        run("--input.uri", str(tmp_path / "in"), "--output.uri", str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "output.uri: must be given"),
        (["--output.uri", "/out", "--create-job"], "--create-job: needs a value"),
        (["--output.uri", "/out", "--jsn"], "--jsn"),
        (["--output.uri", "/out", "--json=yes"], "--json: takes no value"),
        (["--output.uri", "/out", "flowers"], "unexpected argument 'flowers'"),
        (["--output.uri", "/out", "--model.weights", "/no/w.h5"], "/no/w.h5"),
    ],
)
def test_mistakes(arguments: list[str], named: str) -> None:
    """A mistake in the flags or settings names it."""
    with pytest.raises(SettingsError) as raised:
        plan.parse(arguments)

    assert named in raised.value.message


@pytest.mark.slow
def test_no_tensorflow(places: list[str]) -> None:
    """It works where TensorFlow is not installed, and does not load the library of Kubernetes without need."""
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = sys.modules['kubernetes'] = None\n"
        "from job.commands import plan\nfrom job.observability.progress import Progress\n"
        f"sys.exit(plan.parse({places!r}).execute(Progress([])))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)

    assert 10 == done.returncode, done.stderr
