"""The quality gate: what passes, what a failure says, and how two models are compared."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from job.config.settings import GateSettings
from job.evaluation import metrics_schema
from job.evaluation.gates import Check, Comparison, Gate, LowestRecall, Measured, measured_from, paired_difference

MEASURED = Measured(accuracy=0.75, roc_auc=0.8, lowest_recall=LowestRecall(label="rare", value=0.5))
UNKNOWN = Measured(
    accuracy=0.75,
    lowest_recall=LowestRecall(label="rare", value=None),
    unavailable={"roc_auc": "no image of it", "lowest_recall": "none at all"},
)


def compared(accuracy: float, latest_accuracy: float, generation: int = 5) -> Comparison:
    """Return a comparison on 100 images."""
    return Comparison(
        generation=generation,
        run_id="old",
        images=100,
        accuracy=accuracy,
        latest_accuracy=latest_accuracy,
        difference=accuracy - latest_accuracy,
        interval=(-0.1, 0.05),
    )


def judge(metrics_: Measured = MEASURED, latest: Comparison | None = None, **settings: Any) -> Gate:
    """Return the outcome for these settings."""
    return Gate.judge(metrics_, GateSettings(**settings), latest)


@pytest.mark.parametrize(("name", "value"), [("min_accuracy", 0.75), ("min_auc", 0.8), ("min_recall", 0.5)])
def test_minimum(name: str, value: float) -> None:
    """The minimum itself passes, as does a higher value; a lower one fails. A setting of 0 requires nothing."""
    assert () == judge().checks
    for required, passed in ((value, True), (value - 0.01, True), (value + 0.01, False)):
        gate = judge(**{name: required})
        [check] = gate.checks
        assert (name, value, required, passed) == (check.name, check.value, check.required, check.passed)
        assert (passed, [] if passed else [check]) == (gate.passed, gate.failed)


def test_every_check_counts() -> None:
    """One failed check fails the gate, and the others keep their outcome."""
    gate = judge(min_accuracy=0.7, min_auc=0.9, min_recall=0.6)

    assert not gate.passed
    assert [True, False, False] == [check.passed for check in gate.checks]
    assert ["min_auc", "min_recall"] == [check.name for check in gate.failed]


@pytest.mark.parametrize(
    ("metrics_", "name", "required", "text"),
    [
        (MEASURED, "min_accuracy", 0.8, "the validation accuracy is 0.7500, below gate.min_accuracy = 0.8"),
        (MEASURED, "min_auc", 0.9, "the validation ROC-AUC is 0.8000, below gate.min_auc = 0.9"),
        (
            MEASURED,
            "min_recall",
            0.6,
            "the lowest validation recall is 0.5000 (of 'rare'), below gate.min_recall = 0.6",
        ),
        (
            UNKNOWN,
            "min_auc",
            0.9,
            "the validation ROC-AUC is unknown (no image of it), and gate.min_auc = 0.9 requires it",
        ),
        (
            UNKNOWN,
            "min_recall",
            0.01,
            "the lowest validation recall is unknown (of 'rare': none at all), and gate.min_recall = 0.01 requires it",
        ),
    ],
)
def test_failure(metrics_: Measured, name: str, required: float, text: str) -> None:
    """A failed check says both values, and the class; a metric that cannot be computed fails with its reason."""
    [check] = judge(metrics_, **{name: required}).failed

    assert text == check.failure()


def test_worse_than_latest() -> None:
    """The failure says both accuracies, the run, the difference with its interval, and what is allowed."""
    [check] = judge(latest=compared(0.9, 0.95), no_worse_than_latest=0.01).failed

    assert (
        "the validation accuracy on images that the latest run did not train on is 0.9000, below the 0.9400 of "
        "gate.no_worse_than_latest (the latest run, old, has 0.9500 on the same 100 images: -0.0500, "
        "95 % interval -0.1000 to +0.0500; a drop of 0.01 is allowed)"
    ) == check.failure()


@pytest.mark.parametrize(
    ("accuracy", "latest_accuracy", "allowed", "passed"),
    [
        (0.9, 0.9, 0, True),
        (0.89, 0.9, 0, False),
        (0.89, 0.9, 0.01, True),  # although 0.9 - 0.01 > 0.89 in floating point
        (0.88, 0.9, 0.01, False),
        (0.95, 0.9, 0, True),
    ],
)
def test_allowed_drop(accuracy: float, latest_accuracy: float, allowed: float, passed: bool) -> None:
    """The allowed drop itself passes; a larger one fails."""
    assert passed == judge(latest=compared(accuracy, latest_accuracy), no_worse_than_latest=allowed).passed


@pytest.mark.parametrize(("generation", "passed"), [(0, True), (5, None)])
def test_nothing_to_compare_with(generation: int, passed: bool | None) -> None:
    """Without a latest run the check passes; one that is unusable leaves it open. Neither fails the gate."""
    gate = judge(latest=Comparison(generation=generation, reason="why"), no_worse_than_latest=0)

    assert (Check(name="no_worse_than_latest", value=None, required=None, passed=passed, note="why"),) == gate.checks
    assert gate.passed


def test_generation_that_was_compared() -> None:
    """Only the generation that was compared may be replaced; without the check any may be."""
    gate = judge(latest=compared(0.9, 0.9), no_worse_than_latest=0)

    assert [True, False] == [gate.may_replace(generation) for generation in (5, 6)]
    assert judge().may_replace(6)
    assert not judge().judged_again(GateSettings(no_worse_than_latest=0)).may_replace(6)


def test_judged_again() -> None:
    """Another start judges the recorded metrics by its own settings, and reports a recorded comparison as it is."""
    failed = judge(latest=compared(0.8, 0.9), no_worse_than_latest=0, min_auc=0.8)

    assert failed.judged_again(GateSettings(no_worse_than_latest=0.5)).failed == failed.failed
    assert failed.judged_again(GateSettings(min_auc=0.8)).passed
    assert ["min_recall"] == [check.name for check in failed.judged_again(GateSettings(min_recall=0.6)).failed]
    assert failed == failed.judged_again(GateSettings(no_worse_than_latest=0, min_auc=0.8))


def test_comparison_that_was_not_required() -> None:
    """A later start that requires the comparison of a run that was published without it leaves it open."""
    [check] = judge().judged_again(GateSettings(no_worse_than_latest=0)).checks

    assert (None, None, None) == (check.value, check.required, check.passed)
    assert "judged only by the start that publishes" in check.note


def test_documents_of_earlier_versions() -> None:
    """What an earlier version recorded is judged; what it did not record fails with that reason."""
    adapter = TypeAdapter(Gate)
    recorded = adapter.validate_python({"passed": True, "accuracy": 0.9, "min_accuracy": 0.5, "of_a_later_version": 1})

    assert (True, 0.9, 0.5) == (recorded.passed, recorded.accuracy, recorded.min_accuracy)
    assert recorded.judged_again(GateSettings(min_accuracy=0.9)).passed
    for name in ("min_auc", "min_recall"):
        [check] = recorded.judged_again(GateSettings(**{name: 0.1})).failed
        assert "did not record it" in check.failure()


def test_document() -> None:
    """The recorded gate has everything that a later start judges, and comes back from its document."""
    gate = judge(latest=compared(0.9, 0.95), no_worse_than_latest=0.1, min_auc=0.5)
    document = TypeAdapter(Gate).dump_python(gate, mode="json")

    assert gate == TypeAdapter(Gate).validate_python(gate.document()) == TypeAdapter(Gate).validate_python(document)
    published = metrics_schema.Gate.model_validate_json(json.dumps(gate.summary()))
    assert gate.checks == tuple(Check(**check.model_dump()) for check in published.checks)
    assert (0.75, 0.8, {"label": "rare", "value": 0.5}) == (
        document["accuracy"],
        document["roc_auc"],
        document["lowest_recall"],
    )


def metrics(**recalls: float | None) -> dict[str, Any]:
    """Return the validation metrics of labels with these recalls."""
    return {
        "accuracy": 0.9,
        "roc_auc": None,
        "labels": {label: {"recall": recall} for label, recall in recalls.items()},
        "unavailable": {"roc_auc": "one class", **{f"labels.{label}.recall": f"no {label}" for label in recalls}},
    }


def test_measured() -> None:
    """The metrics come from metrics.json: the class with the lowest recall, and the reason for what is null."""
    assert Measured(
        accuracy=0.9, lowest_recall=LowestRecall(label="b", value=0.0), unavailable={"roc_auc": "one class"}
    ) == measured_from(metrics(a=0.5, b=0.0, c=1.0))


def test_class_without_images() -> None:
    """A class whose recall cannot be computed counts as the lowest: its recall cannot be proven."""
    found = measured_from(metrics(a=0.0, b=None))

    assert LowestRecall(label="b", value=None) == found.lowest_recall
    assert "no b" == found.unavailable["lowest_recall"]


def test_paired_difference() -> None:
    """Accuracies, their difference, and an interval that only the images with different outcomes widen."""
    correct, latest = np.ones(100, bool), np.ones(100, bool)
    correct[:10], latest[5:25] = False, False

    found = paired_difference(correct, latest, seed=7)

    assert (100, 0.9, 0.8, 0.1) == tuple(
        found[name] for name in ("images", "accuracy", "latest_accuracy", "difference")
    )
    # 15 images are better and 5 worse: the standard error is sqrt(0.20 - 0.1**2) / 10 = 0.0436.
    assert [0.1 - 1.96 * 0.0436, 0.1 + 1.96 * 0.0436] == pytest.approx(found["interval"], abs=0.015)
    assert found == paired_difference(correct, latest, seed=7)


def test_models_that_answer_alike() -> None:
    """Models that are correct on the same images have no difference, and no interval of it."""
    correct = np.array([True, False] * 20)

    found = paired_difference(correct, correct, seed=7)

    assert (0.0, (0.0, 0.0)) == (found["difference"], tuple(found["interval"]))
