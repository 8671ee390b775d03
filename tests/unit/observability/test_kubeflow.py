"""Progress for Kubeflow Trainer, over real HTTPS: what is posted, and that it never disturbs the run."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, get_args

import pytest
from https_server import Authority, Fault, serving
from structlog.testing import capture_logs

from job.observability.kubeflow import PREFIXES, percentage, trainer_listener, trainer_status
from job.observability.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATH = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/ml/trainjobs/flowers/status"


class Trainer(ThreadingHTTPServer):
    """Takes posts as the status server of Kubeflow Trainer does, behind HTTPS.

    Attributes:
        posts: what it took: path, token, trainerStatus.
        status: what it answers.
        answers: set while it answers; it hangs otherwise.
        taken: released for each post.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Take)
        self.posts: list[tuple[str, str | None, dict[str, Any]]] = []
        self.status = 200
        self.answers = threading.Event()
        self.answers.set()
        self.taken = threading.Semaphore(0)


class _Take(BaseHTTPRequestHandler):
    server: Trainer

    def do_POST(self) -> None:  # http.server's name
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.posts.append((self.path, self.headers["Authorization"], body["trainerStatus"]))
        self.server.taken.release()
        self.server.answers.wait(60)
        answer = json.dumps({"message": "no Pod of this TrainJob"}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Write no log."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority that the TrainJob trusts."""
    return Authority.create(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trainer() -> Iterator[Trainer]:
    """Return a running status server, without HTTPS."""
    with Trainer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.answers.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def train_job(
    trainer: Trainer, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Let this process be one of a TrainJob; return the file with its token."""
    token = tmp_path / "token"
    token.write_text("first\n")
    with serving(authority.issue(None), f"http://127.0.0.1:{trainer.server_port}") as url:
        set_variables(monkeypatch, url + PATH, authority.bundle, token)
        yield token


def set_variables(
    monkeypatch: pytest.MonkeyPatch, url: str, bundle: Path, token: Path, prefix: str = PREFIXES[0]
) -> None:
    """Set the variables that Kubeflow Trainer gives each container."""
    for name, value in (("URL", url), ("CA_CERT", bundle), ("TOKEN", token)):
        monkeypatch.setenv(f"{prefix}_{name}", str(value))


def listening(patience: float = 30.0) -> Progress:
    """Return a stream of events whose only listener reports to Kubeflow Trainer, without an interval."""
    listener = trainer_listener(interval=0.0, patience=patience)
    assert listener is not None
    return Progress([listener])


EPOCH = {"loss": 0.5, "accuracy": 0.75, "val_loss": 0.25, "val_accuracy": float("nan")}


def test_run_from_start_to_end(trainer: Trainer, train_job: Path) -> None:
    """Each post has the whole state; a renewed token is used; nothing is posted before anything is known."""
    progress = listening()
    progress.event("input.listed")
    progress.event("training.planned", epochs={"feature_extraction": 4, "fine_tuning": 4})
    progress.event("stage.started", stage="feature_extraction", epochs=4)
    assert trainer.taken.acquire(timeout=60)
    assert (PATH, "Bearer first", 0) == (*trainer.posts[0][:2], trainer.posts[0][2]["progressPercentage"])
    train_job.write_text("second\n")
    progress.event("epoch.finished", stage="feature_extraction", epoch=1, epoch_total=1, **EPOCH)
    progress.event("stage.finished", stage="feature_extraction")
    while trainer.posts[-1][2]["progressPercentage"] != 12:
        assert trainer.taken.acquire(timeout=60)
    progress.event("run.succeeded", message="published")
    progress.close()

    _, token, last = trainer.posts[-1]
    assert ("Bearer second", 100, 0) == (token, last["progressPercentage"], last["estimatedRemainingSeconds"])
    expected = [{"name": "loss", "value": "0.5"}, {"name": "accuracy", "value": "0.75"}]
    expected += [{"name": "val_loss", "value": "0.25"}, {"name": "totalEpochs", "value": "8"}]
    assert expected == last["metrics"]
    assert last["lastUpdatedTime"].endswith("Z")


def status(**facts: object) -> dict[str, Any]:
    """Return a status.json within the third of eight epochs."""
    document = {"state": "running", "epoch_total": 3, "epochs_total": 8, "step": None, "done": None, "total": None}
    return document | {"metrics": None, "run_eta_seconds": None, "updated_at": "T"} | facts


@pytest.mark.parametrize(
    ("document", "previous", "expected"),
    [
        (status(epoch_total=None, epochs_total=None), None, None),
        (status(epoch_total=None, epochs_total=None), 50, 50),
        (status(epoch_total=None, metrics={"epoch_total": 4}), 40, 50),  # between the stages
        (status(), None, 25),
        (status(step=1, done=50, total=100), None, 31),
        (status(step=1, done=100, total=0), None, 25),
        (status(done=50, total=100), None, 25),  # validation
        (status(), 30, 30),
        (status(epoch_total=8, metrics={"epoch_total": 8}), 90, 99),
        (status(state="failed"), 31, 31),
        (status(state="succeeded", epoch_total=None, epochs_total=None), None, 100),
    ],
)
def test_percentage(document: dict[str, Any], previous: int | None, expected: int | None) -> None:
    """Epochs of both stages and the steps of this one count; it never falls, and 100 is a published run."""
    assert expected == percentage(document, previous)


def test_request() -> None:
    """Values are text; seconds to the end are whole, and left out if unknown."""
    found = trainer_status(status(run_eta_seconds=12.6, metrics={"loss": 1 / 3, "seconds": 5}), 25)["trainerStatus"]

    assert (25, 13, "T") == tuple(
        found[key] for key in ("progressPercentage", "estimatedRemainingSeconds", "lastUpdatedTime")
    )
    values = {"loss": "0.333333", "currentEpoch": "3", "totalEpochs": "8"}
    assert values == {metric["name"]: metric["value"] for metric in found["metrics"]}
    assert "estimatedRemainingSeconds" not in trainer_status(status(), 25)["trainerStatus"]


@pytest.mark.parametrize("fault", get_args(Fault))
def test_server_that_is_not_trusted(
    trainer: Trainer, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """Without a certificate for this host from the TrainJob's authority, the token is not sent; one warning."""
    (tmp_path / "token").write_text("secret")
    (tmp_path / "other").mkdir()
    issuer = Authority.create(tmp_path / "other") if fault == "unknown" else authority
    certificate = issuer.issue(None if fault == "unknown" else fault)
    with serving(certificate, f"http://127.0.0.1:{trainer.server_port}") as url, capture_logs() as lines:
        set_variables(monkeypatch, url + PATH, authority.bundle, tmp_path / "token")
        progress = listening()
        for _ in range(2):
            progress.event("run.succeeded")
        progress.close()

    assert [] == trainer.posts
    assert ["status.write_failed"] == [line["event"] for line in lines]


@pytest.mark.usefixtures("train_job")
def test_server_that_refuses(trainer: Trainer) -> None:
    """A refusal is logged once, with the server's answer; later states are still posted."""
    trainer.status = 403
    with capture_logs() as lines:
        progress = listening()
        for number in (1, 2):
            progress.event("run.succeeded")
            assert trainer.taken.acquire(timeout=60), number
        progress.close()

    [line] = lines
    assert ("status.write_failed", True) == (line["event"], "403" in str(line["error"]))
    assert "no Pod of this TrainJob" in str(line["error"])


@pytest.mark.usefixtures("train_job")
def test_server_that_hangs(trainer: Trainer) -> None:
    """Events are not delayed by a server that does not answer, and the end waits for a limited time."""
    trainer.answers.clear()
    progress = listening(patience=0.1)
    progress.event("run.succeeded")
    assert trainer.taken.acquire(timeout=60)
    for _ in range(100):
        progress.event("step.taken")
    progress.close()

    assert 1 == len(trainer.posts)


def test_token_that_is_missing(trainer: Trainer, train_job: Path) -> None:
    """Without its token nothing is posted, and the run continues."""
    train_job.unlink()
    with capture_logs() as lines:
        progress = listening()
        progress.event("run.succeeded")
        progress.close()

    assert [] == trainer.posts
    assert ["status.write_failed"] == [line["event"] for line in lines]


def test_names_of_the_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a TrainJob there is no listener; the variables of earlier versions are known, too."""
    for prefix in PREFIXES:
        monkeypatch.delenv(f"{prefix}_URL", raising=False)
    with capture_logs() as lines:
        assert trainer_listener() is None
    assert [] == lines

    set_variables(monkeypatch, "https://localhost:1/status", tmp_path / "ca", tmp_path / "token", PREFIXES[1])
    listener = trainer_listener(patience=0.0)
    assert listener is not None
    listener.close()


@pytest.mark.parametrize(("name", "value"), [("URL", "http://localhost:1/status"), ("TOKEN", "")])
def test_variables_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A token is never sent in plain text; what is missing is a warning and no failure."""
    set_variables(monkeypatch, "https://localhost:1/status", tmp_path / "ca", tmp_path / "token")
    monkeypatch.setenv(f"{PREFIXES[0]}_{name}", value)

    with capture_logs() as lines:
        assert trainer_listener() is None
    assert ["kubeflow.not_reported"] == [line["event"] for line in lines]
