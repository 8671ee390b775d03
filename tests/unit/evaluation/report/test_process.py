"""The run itself on the page: time, cost, settings, provenance."""

from __future__ import annotations

import json
import math

import pytest
import report_files

from job.config.settings import ReportSettings
from job.evaluation.report import process
from job.evaluation.report.files import Files

METRICS = report_files.metrics(report_files.TWO)


def test_title() -> None:
    """The demo has no URI."""
    assert ("flowers-4c32300725", "gs://my-bucket/flowers") == process.title(json.loads(report_files.config()))
    assert ("a run", "the built-in demo pictures") == process.title({})


def test_phases() -> None:
    """Phases have their share of the longest; what is in none of them is the rest."""
    found = {name: (text.replace("\u202f", " "), round(share, 3)) for name, text, share in process.phases(METRICS)}

    assert ("6.9 min", 1.0) == found["fine tuning"]
    assert "3.0 s" == found["other"][0]
    assert [] == process.phases({})


@pytest.mark.parametrize(
    ("price", "peak", "text", "note"),
    [
        (2.48, 4_000_000_000, "0.32", "7.9 min at 2.48 an hour"),
        (2.48, None, "n/a", "the run used no GPU"),
        (None, 4_000_000_000, None, None),
    ],
)
def test_cost(price: float | None, peak: int | None, text: str | None, note: str | None) -> None:
    """The cost is that of the time over all starts, where the run had a GPU and a price is set."""
    settings = ReportSettings(gpu_price_per_hour=price)
    found = dict(process.timing(METRICS | {"memory": {"device_peak_bytes": peak}}, settings)).get("cost of the GPU")

    assert (text, note) == ((found.text, found.note.replace("\u202f", " ")) if found else (None, None))


def test_cost_of_several_gpus() -> None:
    """Each GPU has the price."""
    metrics = METRICS | {"memory": {"device_peak_bytes": 1}, "timing": METRICS["timing"] | {"gpus": 2}}
    found = dict(process.timing(metrics, ReportSettings(gpu_price_per_hour=2.48)))

    assert "0.65" == found["cost of 2 GPUs"].text


def test_timing() -> None:
    """Restarts, speed and waiting for data are shown; of a skipped stage they are n/a."""
    metrics = METRICS | {"stages": METRICS["stages"] | {"fine_tuning": None}}
    found = dict(process.timing(metrics, ReportSettings()))

    assert ("1", "480 images/s") == (found["restarts"].text, found["feature extraction, speed"].text)
    assert ("n/a", "the stage was skipped") == found["fine tuning, waiting for data"][::2]


def test_changed_settings() -> None:
    """Only values that differ from their defaults are shown, with their source."""
    config = json.loads(report_files.config("--fine_tuning.epochs", "12", "--run.seed", "7", "--input.exclude", "a,b"))

    found = {setting.name: (setting.value, setting.origin) for setting in process.changed_settings(config)}
    assert {"input.uri", "output.uri", "fine_tuning.epochs", "input.exclude"} == found.keys()
    assert (("12", "flag"), ("a, b", "flag")) == (found["fine_tuning.epochs"], found["input.exclude"])


def test_provenance() -> None:
    """What made the model is shown, without what it nests and without what is unknown."""
    found = dict(process.provenance(Files(report_files.two_labels().get)))

    assert {"version": "0.1.0", "packages.tensorflow": "2.21.0", "device.threads": "4"} == found
    assert [] == process.provenance(Files({}.get))


def test_history() -> None:
    """Epochs are numbers; what is missing is NaN, which a curve leaves out."""
    text = b"stage,epoch_total,loss\nfine_tuning,2,\n"
    [row] = process.history(Files({"metrics/history.csv": text}.get))

    assert ("fine_tuning", 2.0, True) == (row["stage"], row["epoch_total"], math.isnan(row["loss"]))
