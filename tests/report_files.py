"""The files of made-up runs, of which reports are made."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from job.config.load import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

TWO = ("cats", "dogs")
MANY = (
    "قطة صغيرة",
    "كلب",
    "狗和猫在一起的照片",
    "金魚",
    "ネコ",
    "Übergrößenträger",
    "a label that is far longer than what a chart or a table has room for, as folder names sometimes are",
    "<b>bold</b> & $x^2$",
    *(f"species {number:03}" for number in range(112)),
)


def jpeg(shade: int, side: int = 224) -> str:
    """Return a picture as the gallery has it."""
    noise = np.random.default_rng(shade).integers(-40, 40, (side // 8, side // 8, 3))
    pixels = np.clip(shade + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return base64.b64encode(file.getvalue()).decode()


def split_metrics(labels: Sequence[str], images: int, *, has_matrix: bool = True) -> dict[str, Any]:
    """Return the metrics of a held-out split; the last of many labels has no images."""
    random = np.random.default_rng(len(labels))
    number = len(labels)
    supported = number - (number > 2)
    counts = np.zeros((number, number), np.int64)
    for row in range(supported):
        counts[row, row] = images // number - row % 3
        counts[row, random.integers(0, number)] += 1 + row % 3
    support, predicted, hits = counts.sum(1), counts.sum(0), np.diag(counts)
    unavailable, by_label = {}, {}
    for row, label in enumerate(labels):
        has = bool(support[row])
        by_label[label] = {
            "support": int(support[row]),
            "precision": hits[row] / predicted[row] if predicted[row] else None,
            "recall": hits[row] / support[row] if has else None,
            "f1": 2 * hits[row] / (support[row] + predicted[row]) if support[row] + predicted[row] else None,
            "roc_auc": 0.99 - row / 1000 if has else None,
            "pr_auc": 0.97 - row / 900 if has else None,
        }
        for name, value in by_label[label].items():
            if value is None:
                unavailable[f"labels.{label}.{name}"] = "no validation image has the label"
    accuracy = hits.sum() / counts.sum()
    wrong = sorted((-int(counts[i, j]), i, j) for i in range(number) for j in range(number) if i != j and counts[i, j])[
        :50
    ]
    recall = [float(one["recall"]) for one in by_label.values() if one["recall"] is not None]
    return {
        "images": int(counts.sum()),
        "accuracy": accuracy,
        "loss": 0.0834,
        "balanced_accuracy": float(np.mean(recall)),
        "log_loss": 0.0834,
        "brier": 0.0421,
        "expected_calibration_error": 0.031,
        "roc_auc": 0.993,
        "pr_auc": 0.987,
        "labels": by_label,
        "confusion": {"labels": list(labels), "counts": counts.tolist()} if has_matrix else None,
        "confused": [{"label": labels[i], "prediction": labels[j], "images": -n} for n, i, j in wrong],
        "intervals": {
            "accuracy": [max(0.0, accuracy - 0.03), min(1.0, accuracy + 0.02)],
            "log_loss": [0.06, 0.11],
            "roc_auc": [0.98, 0.998] if number == 2 else None,
            "recall": {label: [0.9, 1.0] if by_label[label]["recall"] is not None else None for label in labels},
        },
        "unavailable": unavailable,
    }


def curves(labels: Sequence[str]) -> dict[str, Any]:
    """Return curves.json: of over 50 labels, ten have curves."""
    x = np.linspace(0, 1, 60)
    shown = labels if len(labels) <= 50 else labels[:10]
    bent = {label: 1 - (1 - x) ** (18 - index) for index, label in enumerate(shown)}
    return {
        "validation": {
            "roc": {
                label: {"false_positive_rate": x.tolist(), "true_positive_rate": y.tolist()}
                for label, y in bent.items()
            },
            "pr": {
                label: {"recall": x.tolist(), "precision": (1 - x ** (14 - index) * 0.4).tolist()}
                for index, label in enumerate(shown)
            },
            "calibration": {
                "confidence": [0.55, 0.64, 0.75, 0.86, 0.98],
                "accuracy": [0.5, 0.7, 0.71, 0.9, 0.99],
                "images": [2, 5, 8, 20, 85],
            },
        }
    }


def history(epochs: int = 10) -> str:
    """Return history.csv of two stages."""
    lines = ["stage,epoch,loss,accuracy,val_loss,val_accuracy,seconds,images_per_second,epoch_total"]
    for number in range(2 * epochs):
        stage, epoch = ("feature_extraction", "fine_tuning")[number >= epochs], number % epochs + 1
        loss = 0.6 * 0.87**number + 0.05
        row = [loss, 1 - loss / 2, loss + 0.03 + 0.002 * number, 0.985 - loss / 2, 1.25, 480]
        lines.append(",".join([stage, str(epoch), *(f"{value:.5g}" for value in row), str(number + 1)]))
    return "\n".join(lines) + "\n"


def encode(document: object) -> bytes:
    """Return a document as JSON."""
    return json.dumps(document, ensure_ascii=False, default=float).encode()


def encode_lines(documents: Sequence[object]) -> bytes:
    """Return documents as JSON Lines."""
    return b"".join(encode(document) + b"\n" for document in documents)


def config(*flags: str, run_id: str = "flowers-4c32300725") -> bytes:
    """Return config.json."""
    loaded = load_settings(["--input.uri", "gs://my-bucket/flowers", "--output.uri", "gs://my-bucket/out", *flags], {})
    return encode({"run_id": run_id, "identity": {}, **loaded.document()})


def metrics(labels: Sequence[str], images: int = 120, **extra: Any) -> dict[str, Any]:
    """Return metrics.json."""
    held_out = split_metrics(labels, images, has_matrix=len(labels) <= 50)
    if len(labels) > 50:
        held_out["unavailable"]["confusion"] = "over 50 labels: metrics/confusion.csv has it"
    stage = {"images_per_second": 480.0, "input_wait": 0.021, "epochs": 10}
    return {
        "validation": held_out,
        "test": None,
        "kept": {"stage": "fine_tuning", "epoch": 9, "epoch_total": 19},
        "majority": {"label": labels[0], "validation": 1 / len(labels), "test": None},
        "calibration": {"temperature": 1.31, "log_loss": 0.0802},
        "threshold": {
            "label": labels[1],
            "value": 0.42,
            "validation": {"precision": 0.95, "recall": 0.97, "f1": 0.96},
            "test": None,
        }
        if len(labels) == 2
        else None,
        "ablation": [
            {
                "name": name,
                "accuracy": accuracy,
                "balanced_accuracy": accuracy,
                "log_loss": loss,
                "intervals": {"accuracy": [accuracy - 0.04, accuracy + 0.02]},
            }
            for name, accuracy, loss in (
                ("majority", 0.5, None),
                ("feature_extraction", 0.93, 0.2),
                ("fine_tuning", 0.967, 0.09),
                ("kept", 0.967, 0.0834),
            )
        ],
        "warnings": [],
        "data": {
            "labels": {label: {"train": 240 - n, "validation": 60, "test": 0} for n, label in enumerate(labels)},
            "quarantined": 12,
        },
        "gate": {"passed": True, "checks": []},
        "stages": {"feature_extraction": stage, "fine_tuning": stage},
        "timing": {"list": 0.4, "import": 3.9, "ingest": 21.3, "feature_extraction": 2.2, "fine_tuning": 412.8}
        | {"evaluate": 6.1, "export": 8.2, "verify": 12.9, "upload": 0.5, "total": 471.3, "starts": 2},
        "memory": {"device_peak_bytes": 4_200_000_000, "resident_peak_bytes": 2_000_000_000},
        **extra,
    }


def files(labels: Sequence[str], *flags: str, **extra: Any) -> dict[str, bytes]:
    """Return the files of a run: name -> content."""
    uri = "gs://my-bucket/flowers/{}/{:04}.jpg".format
    mistakes = [
        {
            "uri": uri(labels[n % 2], n),
            "split": "validation",
            "label": labels[n % 2],
            "prediction": labels[(n + 1) % 2],
            "probability": 0.998 - n / 100,
            "picture": jpeg(60 + 20 * n),
            "heatmap": jpeg(200 - 20 * n),
        }
        for n in range(6)
    ]
    suspects = [
        {
            "uri": uri(labels[0], n),
            "split": "train",
            "label": labels[0],
            "suggested": labels[1],
            "probability": 0.01 + n / 100,
            "suggested_probability": 0.98,
        }
        for n in range(14)
    ]
    quarantined = [
        {"uri": uri(labels[0], n), "label": labels[0], "size": 0, "reason": "corrupt", "detail": "cut off"}
        for n in range(12)
    ]
    duplicated = [
        {"a": uri("a", n), "b": uri("b", n), "distance": n, "kind": "near" if n else "exact", "across": ["split"]}
        for n in range(4)
    ]
    pictures = [row | {"picture": jpeg(30 + 15 * n)} for n, row in enumerate(suspects[:4])]
    return {
        "config.json": config(*flags),
        "metrics/metrics.json": encode(metrics(labels, **extra)),
        "metrics/curves.json": encode(curves(labels)),
        "metrics/history.csv": history().encode(),
        "data/quarantine.jsonl": encode_lines(quarantined),
        "data/duplicates.jsonl": encode_lines(duplicated),
        "data/label_errors.jsonl": encode_lines(suspects),
        "report/gallery.json": encode({"mistakes": mistakes, "label_errors": pictures}),
        "manifest.json": encode(
            {
                "provenance": {
                    "version": "0.1.0",
                    "image": None,
                    "packages": {"tensorflow": "2.21.0"},
                    "device": {"threads": 4},
                }
            }
        ),
    }


def two_labels() -> dict[str, bytes]:
    """Return a run that passed its gate."""
    check = {"name": "min_accuracy", "value": 0.9583, "required": 0.9, "passed": True, "note": ""}
    return files(
        TWO,
        *("--gate.min_accuracy", "0.9", "--report.gpu_price_per_hour", "2.48", "--fine_tuning.epochs", "12"),
        gate={"passed": True, "checks": [check]},
        test=split_metrics(TWO, 60),
    )


def many_labels() -> dict[str, bytes]:
    """Return a run of 120 labels with long names, and names in other scripts."""
    return files(MANY, images=1200)


def some_labels() -> dict[str, bytes]:
    """Return a run of 12 labels."""
    return files(MANY[:12], images=480)


def failed_gate() -> dict[str, bytes]:
    """Return a run that failed its gate, with warnings."""
    checks = [
        {"name": "min_accuracy", "value": 0.8999, "required": 0.9, "passed": False, "note": ""},
        {"name": "min_recall", "value": 0.0, "required": 0.5, "passed": False, "note": "dogs"},
        {"name": "min_auc", "value": 0.993, "required": 0.8, "passed": True, "note": ""},
        {"name": "no_worse_than_latest", "value": None, "required": 0.01, "passed": None, "note": "other labels"},
    ]
    warnings = [
        {"code": "recall_zero", "text": "no image of dogs is recognized (recall 0)"},
        {"code": "few_images", "text": "only 12 validation images: every number is uncertain"},
    ]
    return files(TWO, gate={"passed": False, "checks": checks}, warnings=warnings, memory={"device_peak_bytes": None})


def older_run() -> dict[str, bytes]:
    """Return the files of a run of version 0.1.0's first days, without optional ones."""
    found = {
        "validation": {"accuracy": 0.909, "loss": 0.25, "images": 77},
        "test": None,
        "kept": {"stage": "fine_tuning", "epoch": 10, "epoch_total": 20},
        "stages": {"feature_extraction": {"images_per_second": 300.0, "input_wait": 0.0}, "fine_tuning": None},
        "timing": {"ingest": 4.0, "total": 50.0, "starts": 1},
    }
    return {
        "config.json": config("--gate.min_accuracy", "0.95"),
        "metrics/metrics.json": encode(found),
        "metrics/history.csv": history().encode(),
        "data/split.jsonl": encode_lines([{"uri": "a", "label": "cats", "split": "train"}]),
    }
