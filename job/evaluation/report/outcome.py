"""The first lines of the page: how the run ended, its gate, its warnings and the numbers that say most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from job.evaluation.report import values
from job.evaluation.report.files import at
from job.evaluation.report.performance import HELD_OUT, Evaluation
from job.evaluation.report.values import Value, count, decimal, is_number, missing, share

if TYPE_CHECKING:
    from job.evaluation.report.files import Document


class Check(NamedTuple):
    """A check of the quality gate.

    Attributes:
        name: of the setting, without its group.
        value: what the model reached.
        required: what it must reach.
        passed: None: it was not judged.
        note: why, or by how much.
    """

    name: str
    value: Value
    required: Value
    passed: bool | None
    note: str


class Outcome(NamedTuple):
    """The first lines of the page.

    Attributes:
        state: ``passed``, ``failed``, or ``ungated`` where no gate was set.
        headline: one sentence.
        checks: of the gate; only those that are set.
        warnings: sentences.
    """

    state: str
    headline: str
    checks: list[Check]
    warnings: list[str]


def outcome(metrics: Document, config: Document) -> Outcome:
    """Return the first lines of the page."""
    validation = Evaluation(metrics, "validation")
    accuracy = validation.get("accuracy", share)
    images = count(at(validation.fields, "images"))
    interval = f" (95{values.SPACE}% interval {accuracy.note})" if accuracy.note and not accuracy.missing else ""
    checks = [check for check in _checks(metrics, config) if is_number(at(check, "required"))]
    shown = [
        Check(
            values.name(check["name"]),
            _threshold(check.get("value"), check.get("note")),
            _threshold(check["required"]),
            check.get("passed"),
            values.name(check.get("note") or "", 300),
        )
        for check in checks
    ]
    passed = at(metrics, "gate", "passed")
    if passed is None:
        passed = all(check.passed is not False for check in shown)
    state = "failed" if not passed else "passed" if any(check.passed for check in shown) else "ungated"
    gate = {
        "failed": "The model failed the quality gate, so it did not become the latest run.",
        "passed": "The model passed the quality gate.",
        "ungated": "No quality gate was set." if not shown else "The quality gate could not be judged.",
    }[state]
    headline = f"{accuracy.text} of {images.text} validation images are classified correctly{interval}. {gate}"
    if accuracy.missing:
        headline = f"The run has recorded no validation accuracy. {gate}"
    warnings = at(metrics, "warnings") or []
    return Outcome(state, headline, shown, [values.name(at(warning, "text") or "", 500) for warning in warnings])


def _threshold(value: Any, reason: str | None = None) -> Value:
    """Return a number with as many digits as distinguish it from one that is nearly the same."""
    return Value(f"{value:.4f}".rstrip("0").rstrip("."), float(value)) if is_number(value) else missing(reason)


def _checks(metrics: Document, config: Document) -> list[Document]:
    """Return the checks of the gate; of a run that has not recorded them, the one that it had."""
    recorded = at(metrics, "gate", "checks")
    if isinstance(recorded, list):
        return recorded
    required, value = at(config, "settings", "gate", "min_accuracy"), at(metrics, "validation", "accuracy")
    if not required or not is_number(value):
        return []
    return [{"name": "min_accuracy", "value": value, "required": required, "passed": value >= required}]


def tiles(metrics: Document) -> list[tuple[str, Value]]:
    """Return the few numbers that say most, each with its name."""
    validation, test = (Evaluation(metrics, split) for split in HELD_OUT)
    majority = at(metrics, "majority")
    baseline = share(at(majority, "validation"))
    if not baseline.missing:
        baseline = baseline._replace(note=f"always {values.name(at(majority, 'label'), 40)}")
    return [
        ("accuracy", validation.get("accuracy", share)),
        ("balanced accuracy", validation.get("balanced_accuracy", share)),
        ("test accuracy", test.get("accuracy", share)),
        ("majority baseline", baseline),
        ("ROC AUC", validation.get("roc_auc", decimal)),
        ("log loss", validation.get("log_loss" if "log_loss" in validation.fields else "loss", decimal)),
    ]
