"""The quality gate: what a model must reach before ``latest.json`` points to it.

Three checks need only recorded metrics, so every start judges them by its own settings. The fourth compares the model
with the latest published one; the start that publishes the run makes it, and later starts report its outcome.

A metric that cannot be computed fails its check: what cannot be proven is not passed. A comparison that cannot be made
fails nothing, since a damaged latest run must not block a better model.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from job.evaluation import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from job.config.settings import GateSettings

NO_WORSE = "no_worse_than_latest"

_METRICS = {
    "min_accuracy": "the validation accuracy",
    "min_auc": "the validation ROC-AUC",
    "min_recall": "the lowest validation recall",
    NO_WORSE: "the validation accuracy on images that the latest run did not train on",
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check of the gate.

    Attributes:
        name: of its setting, without ``gate.``.
        value: of the metric; None if it is unknown.
        required: the lowest value that passes; None if there was nothing to compare with.
        passed: None: not judged, which fails nothing.
        note: what the value is of, or why it is unknown.
    """

    name: str
    value: float | None
    required: float | None
    passed: bool | None
    note: str = ""

    def failure(self) -> str:
        """Return the sentence about a failed check, with both values."""
        note, metric = f" ({self.note})" if self.note else "", _METRICS[self.name]
        if self.value is None:
            return f"{metric} is unknown{note}, and gate.{self.name} = {self.required:g} requires it"
        if self.name == NO_WORSE:
            return f"{metric} is {self.value:.4f}, below the {self.required:.4f} of gate.{NO_WORSE}{note}"
        return f"{metric} is {self.value:.4f}{note}, below gate.{self.name} = {self.required:g}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison with the model that ``latest.json`` named, on the same images.

    Attributes:
        generation: of ``latest.json``; 0: there was none.
        run_id: of the run that it named.
        reason: why the models were not compared; empty if they were. All of the following are None then.
        images: their number.
        accuracy: of this run's model.
        latest_accuracy: of the other one.
        difference: `accuracy` - `latest_accuracy`.
        interval: 95 % bootstrap interval of the difference.
    """

    generation: int
    run_id: str | None = None
    reason: str = ""
    images: int | None = None
    accuracy: float | None = None
    latest_accuracy: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None


class HeldOut(NamedTuple):
    """The validation images of a run and its predictions, in an order that does not depend on their labels.

    Attributes:
        labels: the class names.
        content: uint64 [n], size and checksum of each image as one number.
        label: int [n], index into `labels`.
        prediction: int [n], of the run's model.
        encoded: returns the bytes of an image, as stored, by its position.
    """

    labels: tuple[str, ...]
    content: NDArray[np.uint64]
    label: NDArray[Any]
    prediction: NDArray[Any]
    encoded: Callable[[int], bytes]


@dataclass(frozen=True, kw_only=True)
class LowestRecall:
    """The class with the lowest recall; `value` is None if that of the class cannot be computed."""

    label: str
    value: float | None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The metrics of the published model on the validation images, as far as a gate judges them.

    Attributes:
        accuracy: of all images.
        roc_auc: for more than two labels their mean; None if it cannot be computed.
        lowest_recall: None if it is not recorded.
        unavailable: name of a metric above -> why it is None.
    """

    accuracy: float
    roc_auc: float | None = None
    lowest_recall: LowestRecall | None = None
    unavailable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Gate(Measured):
    """The outcome of the quality gate, as recorded in manifest.json and latest.json.

    The defaults are for documents of runs that were published before the fields existed.

    Attributes:
        passed: no check failed.
        min_accuracy: the setting by which it was judged.
        checks: of the settings that require something.
        latest: the comparison with the latest model; None if the settings required none.
    """

    passed: bool
    min_accuracy: float
    checks: tuple[Check, ...] = ()
    latest: Comparison | None = None

    @classmethod
    def judge(cls, measured: Measured, settings: GateSettings, latest: Comparison | None = None) -> Gate:
        """Return the outcome for a model that is about to be published.

        Args:
            measured: its metrics.
            settings: of this start.
            latest: the comparison, if the settings require one.
        """
        checks = _metric_checks(measured, settings)
        if settings.no_worse_than_latest is not None:
            assert latest is not None, "the comparison comes before the judgement"
            checks.append(_comparison_check(latest, settings.no_worse_than_latest))
        return cls._of(measured, settings, checks, latest)

    def judged_again(self, settings: GateSettings) -> Gate:
        """Return the outcome of a published run for the settings of another start. Nothing is compared again."""
        checks, latest = _metric_checks(self, settings), None
        if settings.no_worse_than_latest is not None:
            note = "judged only by the start that publishes a run, which did not require it"
            not_judged = Check(name=NO_WORSE, value=None, required=None, passed=None, note=note)
            checks.append(next((check for check in self.checks if check.name == NO_WORSE), not_judged))
            latest = self.latest
        return self._of(self, settings, checks, latest)

    @classmethod
    def _of(cls, measured: Measured, settings: GateSettings, checks: list[Check], latest: Comparison | None) -> Gate:
        return cls(
            **{item.name: getattr(measured, item.name) for item in dataclasses.fields(Measured)},
            passed=all(check.passed is not False for check in checks),
            min_accuracy=settings.min_accuracy,
            checks=tuple(checks),
            latest=latest,
        )

    @property
    def failed(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if check.passed is False]

    def may_replace(self, generation: int) -> bool:
        """Return whether this outcome allows to replace a generation of ``latest.json``: the one compared with."""
        if not any(check.name == NO_WORSE for check in self.checks):
            return True
        return self.latest is not None and self.latest.generation == generation

    def document(self) -> dict[str, Any]:
        """Return the gate as plain JSON."""
        return dataclasses.asdict(self)

    def summary(self) -> dict[str, Any]:
        """Return the fields of metrics.json about the gate."""
        document = self.document()
        return {name: document[name] for name in ("passed", "checks", "latest")}


def measured_from(split: Mapping[str, Any]) -> Measured:
    """Return what a gate judges of the "validation" in metrics.json."""
    recalls = {label: values["recall"] for label, values in split["labels"].items()}
    # A class whose recall is unknown comes first.
    label = min(recalls, key=lambda label: -1.0 if recalls[label] is None else recalls[label])
    reasons, unavailable = split["unavailable"], {}
    if split["roc_auc"] is None:
        unavailable["roc_auc"] = reasons["roc_auc"]
    if recalls[label] is None:
        unavailable["lowest_recall"] = reasons[f"labels.{label}.recall"]
    return Measured(
        accuracy=split["accuracy"],
        roc_auc=split["roc_auc"],
        lowest_recall=LowestRecall(label=label, value=recalls[label]),
        unavailable=unavailable,
    )


def _metric_checks(measured: Measured, settings: GateSettings) -> list[Check]:
    """Return the checks of recorded metrics for the settings that are above 0."""
    recall = measured.lowest_recall

    def reason(metric: str, value: float | None) -> str:
        not_recorded = "the version that published this run did not record it"
        return measured.unavailable.get(metric, not_recorded) if value is None else ""

    lowest = recall.value if recall else None
    notes = [f"of {recall.label!r}" if recall else "", reason("lowest_recall", lowest)]
    candidates = [
        ("min_accuracy", settings.min_accuracy, measured.accuracy, ""),
        ("min_auc", settings.min_auc, measured.roc_auc, reason("roc_auc", measured.roc_auc)),
        ("min_recall", settings.min_recall, lowest, ": ".join(filter(None, notes))),
    ]
    return [
        Check(name=name, value=value, required=required, passed=value is not None and value >= required, note=note)
        for name, required, value, note in candidates
        if required > 0
    ]


def _comparison_check(latest: Comparison, allowed: float) -> Check:
    """Return the check of a comparison.

    Args:
        latest: the comparison.
        allowed: drop of the accuracy.
    """
    if latest.images is None:
        # Without a latest.json there is nothing that this run could be worse than.
        passed = None if latest.generation else True
        return Check(name=NO_WORSE, value=None, required=None, passed=passed, note=latest.reason)
    assert latest.accuracy is not None
    assert latest.latest_accuracy is not None
    assert latest.difference is not None
    assert latest.interval is not None
    low, high = latest.interval
    return Check(
        name=NO_WORSE,
        value=latest.accuracy,
        required=latest.latest_accuracy - allowed,
        # note: accuracies are fractions of at most 10,000 images, so only rounding can be this small
        passed=latest.difference + allowed > -1e-9,
        note=f"the latest run, {latest.run_id}, has {latest.latest_accuracy:.4f} on the same {latest.images:,} images: "
        f"{latest.difference:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}; a drop of {allowed:g} is allowed",
    )


def paired_difference(correct: NDArray[np.bool_], latest_correct: NDArray[np.bool_], seed: int) -> dict[str, Any]:
    """Return the numbers of a `Comparison` of two models on the same images.

    Args:
        correct: bool [n], which images this run's model classifies correctly; n is at least 1.
        latest_correct: bool [n], the same of the latest model.
        seed: of the bootstrap samples.
    """
    images = len(correct)
    difference = correct.astype(np.int64) - latest_correct.astype(np.int64)
    samples = np.concatenate([counts @ difference for counts in metrics.draws(images, seed)]) / images
    return {
        "images": images,
        "accuracy": float(correct.mean()),
        "latest_accuracy": float(latest_correct.mean()),
        "difference": float(difference.mean()),
        "interval": metrics.interval(samples),
    }
