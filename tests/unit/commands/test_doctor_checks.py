"""The checks of `finetune doctor`: what each of them finds."""

from __future__ import annotations

import json
import operator
from typing import TYPE_CHECKING, Any

import latest_runs
import pytest

from job import storage
from job.commands import doctor, doctor_checks
from job.config.load import load_settings
from job.export import formats
from job.observability.progress import Progress
from job.storage import RetryPolicy

if TYPE_CHECKING:
    from pathlib import Path


def rows_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, dict[str, Any]]:
    """Return check -> row of the JSON."""
    doctor.parse([*map(str, arguments), "--json"]).execute(Progress())
    return {row["check"]: row for row in json.loads(capsys.readouterr().out)}


def test_missing_tensorflow(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where TensorFlow is not installed, that is a failure with the remedy of a run."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    row = rows_of(capsys, "--only", "software")["versions"]

    assert ("failed", 2, True) == (row["verdict"], row["exit_code"], "pip install" in row["remedy"])


def test_missing_package_of_a_format(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A format whose packages are missing is a failure, as in a run."""
    monkeypatch.setitem(formats.PACKAGES, "onnx", ("no_such_package",))

    row = rows_of(capsys, "--only", "software", "--export.formats", "onnx")["versions"]

    assert ("failed", 2, True) == (row["verdict"], row["exit_code"], "EXPORTS=onnx" in row["remedy"])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), "skipped"),
        (("--storage.user_project", "payer"), "ok"),
        (("--storage.user_project", "payer", "--storage.anonymous"), "warning"),
    ],
)
def test_billing_project(capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], expected: str) -> None:
    """A project that pays is named; without credentials it cannot be billed."""
    assert expected == rows_of(capsys, "--only", "storage", *flags)["billing project"]["verdict"]


def test_clock(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that differs is a warning that names the seconds and the direction."""
    monkeypatch.setattr("job.storage.probe.OutputProbe.clock_skew", lambda _: 300.0)
    row = rows_of(capsys, "--only", "storage", "--output.uri", tmp_path)["output clock"]
    assert ("warning", True) == (row["verdict"], "300 s behind" in row["detail"])

    monkeypatch.setattr("job.storage.probe.OutputProbe.clock_skew", lambda _: -300.0)
    row = rows_of(capsys, "--only", "storage", "--output.uri", tmp_path)["output clock"]
    assert "300 s ahead of" in row["detail"]


def test_clock_of_a_store_without_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that does not report when an object was written leaves the clock unchecked, and the line says so."""
    monkeypatch.setattr("job.storage.local.LocalStore.updated", lambda *_: None)

    row = rows_of(capsys, "--only", "storage", "--output.uri", tmp_path)["output clock"]

    assert ("skipped", True) == (row["verdict"], row["detail"].startswith("not checked"))


def test_missing_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of weights that is not there is a failure."""
    row = rows_of(capsys, "--only", "weights", "--model.weights", tmp_path / "w.h5")["weights"]

    assert ("failed", 3) == (row["verdict"], row["exit_code"])


@pytest.mark.parametrize(
    ("flags", "emulator", "said"),
    [
        (("--input.uri", "/in"), None, "no bucket is named"),
        (
            ("--input.uri", "gs://bucket/in"),
            "http://localhost:1",
            "the emulator, STORAGE_EMULATOR_HOST=http://localhost:1",
        ),
        (("--input.uri", "gs://bucket/in", "--storage.anonymous"), None, "none are sent: storage.anonymous"),
    ],
)
def test_no_credentials_are_needed(
    monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], emulator: str | None, said: str
) -> None:
    """Without a bucket, with an emulator, and for a public input alone no credentials are looked for."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    if emulator:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)

    found = doctor_checks._check_credentials(load_settings(flags, {}).settings, RetryPolicy(seconds=0))

    assert said in (found if isinstance(found, str) else found.detail)


def test_weights_to_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are not on this machine are said to be downloaded."""
    monkeypatch.setattr("job.model.weights.locate", lambda *_, **__: "https://host/w.h5")

    found = doctor_checks._check_weights(load_settings([], {}).settings, 1.0)

    assert "not on this machine; they can be downloaded from https://host/w.h5" == found


def test_warm_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run that training starts from is looked up; one that is not there is a failure."""
    flags = ("--only", "weights", "--output.uri", tmp_path, "--model.weights")
    assert ("failed", 3) == operator.itemgetter("verdict", "exit_code")(rows_of(capsys, *flags, "latest")["weights"])

    latest_runs.publish(storage.open_store(str(tmp_path)), "old")
    assert f"the model of {tmp_path}/runs/old" == rows_of(capsys, *flags, "latest")["weights"]["detail"]
