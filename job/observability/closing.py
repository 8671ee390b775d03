"""The closing block: how a run ended, how good its model is, and where model and metrics are."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size

from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Mapping

_LABEL = 24
"""Columns for a label: the block fits into 80."""


def block(outcome: str, run_uri: str, metrics: Mapping[str, Any]) -> list[str]:
    """Return the lines of the closing block of ``finetune run`` and ``finetune demo``.

    Args:
        outcome: what happened, such as "published".
        run_uri: of the run; a path below the working directory is shown relative to it.
        metrics: the facts of `run.evaluated`.

    Raises:
        KeyError, TypeError, ValueError: `metrics` are those of another version.
    """
    location, kept, stages = _location(run_uri), metrics["kept"], metrics["stages"]
    splits = {name: metrics[name] for name in ("validation", "test") if metrics.get(name)}
    rows = [("accuracy", _accuracy(metrics["validation"], "val_acc", "validation"))]
    if "test" in splits:
        rows.append(("", _accuracy(metrics["test"], "test_acc", "test")))
    # Absent in the metrics of older versions.
    balanced = [_balanced(scores, name) for name, scores in splits.items() if "lowest_recall" in scores]
    rows += zip(("balanced", ""), balanced, strict=False)
    epochs = stages[kept["stage"]]["epochs"]
    rows.append(("kept", f"{kept['stage']}, epoch {kept['epoch']} of {epochs}, val_loss {kept['val_loss']:.3f}"))
    label = "stages"
    for name, stage in stages.items():
        if stage:
            best, last = stage["best_val_accuracy"], stage["val_accuracy"]
            text = f"best {best:.3f}, last {last:.3f}, {stage['epochs']} epochs in {duration(stage['seconds'])}"
            rows.append((label, f"{name:<18}  {text}"))
            label = ""
    if metrics.get("warnings"):
        rows.append(("warnings", ", ".join(metrics["warnings"])))
    checks = metrics.get("gate", {}).get("checks", [])
    rows += [("" if number else "gate", _check(check)) for number, check in enumerate(checks)]
    rows += [
        ("model", f"{location}/model/saved_model"),
        ("metrics", f"{location}/metrics/metrics.json"),
        ("next", 'in Python: tf.saved_model.load(model).signatures["serve_bytes"]'),
    ]
    return ["", outcome, "", *(f"  {label:<10}{text}" for label, text in rows), ""]


def duration(seconds: float) -> str:
    """Return a duration as 0:05, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _accuracy(scores: Mapping[str, Any], name: str, split: str) -> str:
    correct = round(scores["accuracy"] * scores["images"])
    return f"{name} {scores['accuracy']:.3f}, {correct:,} of {scores['images']:,} {split} images"


def _balanced(scores: Mapping[str, Any], split: str) -> str:
    """Return the balanced accuracy, and the label with the lowest recall, shortened."""
    lowest = scores["lowest_recall"]
    label = log.readable(lowest["label"])
    if cell_len(label) > _LABEL:
        label = f"{set_cell_size(label, _LABEL - 1)}…"
    return f"{scores['balanced_accuracy']:.3f} on {split}, lowest recall {lowest['recall']:.3f} of {label}"


def _check(check: Mapping[str, Any]) -> str:
    """Return a check of the gate with both of its values."""
    outcome = {True: "passed", False: "failed", None: "not judged"}[check["passed"]]
    if check["required"] is None:  # there was nothing to compare with
        return f"{check['name']} {outcome}"
    value = "unknown" if check["value"] is None else f"{check['value']:.4f}"
    return f"{check['name']} {outcome}: {value}, at least {check['required']:.4f} is required"


def _location(run_uri: str) -> str:
    """Return where a run is; a path below the working directory relative to it."""
    if not run_uri.startswith("/"):
        return run_uri
    with contextlib.suppress(OSError, ValueError):  # the working directory was deleted; the path is not below it
        return str(Path(run_uri).relative_to(Path.cwd()))
    return run_uri
