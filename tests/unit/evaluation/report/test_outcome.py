"""The first lines of the page."""

from __future__ import annotations

import json
from typing import Any

import pytest
import report_files

from job.evaluation.report.outcome import outcome, tiles

CONFIG = json.loads(report_files.config("--gate.min_accuracy", "0.95"))


def found(files: dict[str, bytes]) -> Any:
    """Return the outcome of a made-up run."""
    return outcome(json.loads(files["metrics/metrics.json"]), json.loads(files["config.json"]))


def test_passed() -> None:
    """The accuracy comes first, with its interval and the images; the gate with both values."""
    passed = found(report_files.two_labels())

    assert "passed" == passed.state
    assert passed.headline.replace("\u202f", " ").startswith(
        "97.5 % of 122 validation images are classified correctly (95 % interval 94.5 % to 99.5 %)."
    )
    assert [("0.9583", "0.9", True)] == [(one.value.text, one.required.text, one.passed) for one in passed.checks]


def test_failed() -> None:
    """Each check has both values, with as many digits as distinguish them; what was not judged has its reason."""
    failed = found(report_files.failed_gate())

    assert ("failed", 2) == (failed.state, len(failed.warnings))
    assert [("0.8999", "0.9"), ("0", "0.5"), ("0.993", "0.8"), ("n/a", "0.01")] == [
        (one.value.text, one.required.text) for one in failed.checks
    ]
    assert ("other labels", None) == (failed.checks[-1].note, failed.checks[-1].passed)


@pytest.mark.parametrize(
    ("gate", "state"),
    [
        ({"passed": True, "checks": []}, "ungated"),
        (None, "passed"),
        ({"passed": True, "checks": [{"name": "a"}]}, "ungated"),
    ],
)
def test_gate(gate: object, state: str) -> None:
    """Without a check no gate was set; a run that recorded none had that of its settings."""
    metrics = {"validation": {"accuracy": 0.96, "images": 10}, "gate": gate}

    assert state == outcome(metrics, CONFIG).state


def test_nothing_recorded() -> None:
    """A run without metrics has no numbers, and each says why."""
    assert "no validation accuracy" in outcome({}, {}).headline
    assert {"n/a"} == {value.text for _, value in tiles({})}
    assert "the run has no test images" == dict(tiles({}))["test accuracy"].note


def test_tiles() -> None:
    """The baseline names the label; an older run has its loss."""
    metrics = report_files.metrics(report_files.TWO)
    older = {"validation": {"loss": 0.25}}

    assert "always cats" == dict(tiles(metrics))["majority baseline"].note
    assert "0.250" == dict(tiles(older))["log loss"].text
