"""How well the model does on the held-out images: metrics, what each step adds, labels, confusions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from job.evaluation.report import values
from job.evaluation.report.files import at
from job.evaluation.report.tables import Row, Table, limited, reasons
from job.evaluation.report.values import Value, count, decimal, is_number, share

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.evaluation.report.files import Document

HELD_OUT: Final = ("validation", "test")


class Evaluation:
    """One held-out split's fields of metrics.json."""

    def __init__(self, metrics: Document, split: str) -> None:
        self.split = split
        self.fields: Document = at(metrics, split) or {}

    @property
    def reason(self) -> str | None:
        """Why all of its numbers are missing; None if they are not."""
        return None if self.fields else f"the run has no {self.split} images"

    def get(self, name: str, show: Callable[..., Value], *keys: str) -> Value:
        """Return a number, with its interval if there is one.

        Args:
            name: of the field, or of the label's field.
            show: makes the value.
            keys: under which the field is.
        """
        interval_keys = (name, *keys[1:]) if keys else (name,)
        interval = at(self.fields, "intervals", *interval_keys)
        reason = self.reason or at(self.fields, "unavailable", ".".join([*keys, name]))
        valid = isinstance(interval, list) and len(interval) == 2 and all(map(is_number, interval))
        return show(at(self.fields, *keys, name), interval if valid else None, reason)


_SCORES: Final[tuple[tuple[str, str, Callable[..., Value]], ...]] = (
    ("images", "images", lambda value, _, reason: count(value, reason)),
    ("accuracy", "accuracy", share),
    ("balanced_accuracy", "balanced accuracy", share),
    ("log_loss", "log loss", decimal),
    ("brier", "Brier score", decimal),
    ("expected_calibration_error", "expected calibration error", decimal),
    ("roc_auc", "ROC AUC", decimal),
    ("pr_auc", "PR AUC", decimal),
)


def scores(metrics: Document) -> Table:
    """Return the metrics of both held-out splits."""
    splits = [Evaluation(metrics, split) for split in HELD_OUT if at(metrics, split)]
    rows = [Row(text, [split.get(name, show) for split in splits]) for name, text, show in _SCORES]
    note = f"Below a number: its 95{values.SPACE}% bootstrap interval. {reasons(rows)}"
    return Table([split.split for split in splits], rows, note.strip())


def remarks(metrics: Document) -> list[str]:
    """Return sentences on calibration and threshold."""
    found = []
    if is_number(temperature := at(metrics, "calibration", "temperature")):
        log_loss = decimal(at(metrics, "calibration", "log_loss"))
        found.append(
            f"A temperature of {temperature:.2f}, fitted on the validation images, would give a log loss of "
            f"{log_loss.text}. It is reported, not applied."
        )
    elif isinstance(reason := at(metrics, "calibration", "unavailable", "temperature"), str):
        found.append(f"The temperature is n/a: {values.name(reason, 200)}.")
    if is_number(threshold := at(metrics, "threshold", "value")):
        label = values.name(at(metrics, "threshold", "label"))
        measured = [
            f"{split}: precision {decimal(at(metrics, 'threshold', split, 'precision')).text}, "
            f"recall {decimal(at(metrics, 'threshold', split, 'recall')).text}, "
            f"F1 {decimal(at(metrics, 'threshold', split, 'f1')).text}"
            for split in HELD_OUT
            if at(metrics, "threshold", split)
        ]
        found.append(
            f"The best F1 of “{label}” on the validation images is at a threshold of {threshold:.3f} "
            f"({'; '.join(measured)}). It is reported; the published model answers with probabilities."
        )
    return found


_VARIANTS: Final = {
    "majority": "always the most frequent label",
    "feature_extraction": "end of stage 1, feature extraction",
    "fine_tuning": "end of stage 2, fine-tuning",
    "kept": "the published model",
}


def ablation(metrics: Document) -> Table:
    """Return what each step of the recipe adds, on the same validation images."""
    rows = []
    for variant in at(metrics, "ablation") or []:
        fields = Evaluation({"validation": variant}, "validation")
        accuracy = fields.get("accuracy", share)
        interval = at(variant, "intervals", "accuracy")
        bar = None
        if not accuracy.missing and accuracy.sort is not None:
            low, high = interval if accuracy.note else (accuracy.sort, accuracy.sort)
            bar = (low, accuracy.sort, high)
        numbers = [accuracy, fields.get("balanced_accuracy", share), fields.get("log_loss", decimal)]
        rows.append(Row(_VARIANTS.get(variant["name"], values.name(variant["name"])), numbers, bar))
    return Table(["accuracy", "balanced accuracy", "log loss"], rows, reasons(rows))


_LABEL_COLUMNS: Final[tuple[tuple[str, str, Callable[..., Value]], ...]] = (
    ("support", "images", lambda value, _, reason: count(value, reason)),
    ("precision", "precision", share),
    ("recall", "recall", share),
    ("f1", "F1", decimal),
    ("roc_auc", "ROC AUC", decimal),
    ("pr_auc", "PR AUC", decimal),
)


def labels(metrics: Document) -> Table:
    """Return the validation metrics of each label, the worst F1 first, and its weight in the training loss."""
    validation, columns = Evaluation(metrics, "validation"), [text for _, text, _ in _LABEL_COLUMNS]
    rows = [
        Row(label, [validation.get(name, show, "labels", label) for name, _, show in _LABEL_COLUMNS])
        for label in at(validation.fields, "labels") or {}
    ]
    if weights := at(metrics, "class_weights"):
        columns.append("class weight")
        for row in rows:
            row.cells.append(decimal(weights.get(row.name)))
    f1 = [name for name, _, _ in _LABEL_COLUMNS].index("f1")
    rows.sort(key=lambda row: (row.cells[f1].missing, row.cells[f1].sort or 0.0))
    return limited(Table(columns, rows), "with the lowest F1 first")


def confused(metrics: Document) -> list[tuple[str, str, int]]:
    """Return the most confused pairs: true label, predicted label, images."""
    pairs = at(metrics, "validation", "confused") or []
    return [(values.name(pair["label"]), values.name(pair["prediction"]), int(pair["images"])) for pair in pairs]
