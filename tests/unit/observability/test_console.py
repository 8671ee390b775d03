"""What a person sees on a terminal: one short sentence for each event with news."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from job.observability import closing, log
from job.observability.console import COLUMNS, HIDDEN, SENTENCES, ConsoleListener
from job.observability.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

EPOCH = {"loss": 0.23811, "accuracy": 0.96, "val_loss": 0.20149, "val_accuracy": 0.9671}

EVENTS: dict[str, tuple[dict[str, object], str]] = {
    "input.listed": (
        {"images": 12000, "labels": 2, "uri": "gs://b/flowers"},
        "12,000 images in 2 classes: gs://b/flowers",
    ),
    "run.started": ({"run_id": "flowers-1", "resumed": True}, "resuming run flowers-1"),
    "device.configured": (
        {"kind": "cpu", "name": "AMD EPYC", "threads": 2, "tensorflow": "2.21.0", "precision": "float32"},
        "training on AMD EPYC, 2 threads, TensorFlow 2.21.0, float32",
    ),
    "cache.opened": (
        {
            "encoded_bytes": 10**7,
            "feature_bytes": 10**6,
            "pixel_bytes": 2 * 10**9,
            "folder": "/cache/finetune-r",
            "pixels_kept": False,
        },
        "cache: 2,011 MB in /cache/finetune-r; pixels are decoded again in each epoch",
    ),
    "cache.reused": ({"images": 1200, "of": 12000}, "reusing 1,200 of 12,000 cached images"),
    "images.read": (
        {"images": 12000, "seconds": 61.5, "limited_by": "cache"},
        "read 12,000 images in 61.5 s, limited by the cache's disk",
    ),
    "split.assigned": (
        {"train": 1243, "validation": 77, "test": 5},
        "1,243 images to train on, 77 to validate, 5 to test",
    ),
    "duplicates.found": (
        {"exact": 1200, "near": 3, "leaking": 7, "under_two_labels": 2},
        (
            "1,200 copies, 3 pairs of pictures that show nearly the same; 7 held-out images are, or look like, images "
            "to train on; 2 look like images of another class"
        ),
    ),
    "views.planned": (
        {"views": 4, "bytes": 1_230_000_000, "seconds": 61.5, "reason": "r"},
        "augmentation: stage 1 uses 4 versions of each image, 1,230 MB, about 61.5 s",
    ),
    "views.computed": ({"views": 4, "seconds": 61.5}, "augmented features computed in 61.5 s"),
    "stage.started": (
        {"stage": "fine_tuning", "epochs": 10, "epochs_done": 2, "learning_rate": 1e-5},
        "stage fine_tuning: 10 epochs, learning rate 1e-05",
    ),
    "epoch.finished": (
        {"stage": "fine_tuning", "epoch": 3, "epochs": 10, "epoch_total": 13, **EPOCH},
        "epoch 3/10   loss 0.238  acc 0.960  val_loss 0.201  val_acc 0.967",
    ),
    "stage.stopped_early": (
        {"stage": "fine_tuning", "epochs": 3, "epochs_saved": 7},
        "stage fine_tuning: stopped after 3 epochs, 7 saved",
    ),
    "stage.skipped": ({"stage": "feature_extraction"}, "stage feature_extraction: skipped"),
    "weights.download_started": ({"url": "https://host/w.h5"}, "downloading weights: https://host/w.h5"),
    "model.chosen": (
        {"stage": "fine_tuning", "epoch": 3, "epoch_total": 13, "keep": "best"},
        "keeping the weights of fine_tuning, epoch 3 (keep=best)",
    ),
    "model.converted": (
        {"file": "model/model.tflite", "bytes": 9_123_904, "agreement": 0.9967},
        "converted the model: model/model.tflite, 9.1 MB, 99.7% same labels",
    ),
    "model.verified": ({"images": 77}, "the exported model gives the same answers for 77 images"),
    "gate.compared": (
        {"images": 1200, "accuracy": 0.95, "latest_accuracy": 0.9366, "latest": "flowers-3"},
        "compared with the latest run on 1,200 images: accuracy 0.950, and 0.937 of flowers-3",
    ),
    "label_errors.found": ({"count": 31}, "31 labels may be wrong: data/label_errors.jsonl"),
    "run.succeeded": (
        {"message": "published", "run_uri": "/out/runs/r", "accuracy": 0.90909},
        "published: accuracy 0.909, /out/runs/r",
    ),
}
"""Event -> facts, and its sentence."""

METRICS = {
    "validation": {"accuracy": 0.9, "images": 10, "loss": 0.3},
    "test": None,
    "kept": {"stage": "fine_tuning", "epoch": 2, "epoch_total": 4, "val_loss": 0.3, "val_accuracy": 0.9},
    "stages": {"fine_tuning": {"epochs": 2, "val_accuracy": 0.9, "best_val_accuracy": 0.9, "seconds": 61.0}},
}


@pytest.fixture
def lines() -> Iterator[list[dict[str, object]]]:
    """Return the lines of the log."""
    with capture_logs() as captured:
        yield captured


def test_sentences(lines: list[dict[str, object]]) -> None:
    """Each event with news is a sentence, and each sentence fits a line."""
    progress = Progress([ConsoleListener()])
    for name, (facts, _) in EVENTS.items():
        progress.event(name, **facts)

    assert set(SENTENCES) == set(EVENTS)
    assert [{"event": sentence, "log_level": "info"} for _, sentence in EVENTS.values()] == lines


def test_scheduled_learning_rate(lines: list[dict[str, object]]) -> None:
    """The line of an epoch has the learning rate where it is not that of the settings."""
    progress = Progress([ConsoleListener()])
    progress.event("stage.started", stage="fine_tuning", epochs=10, learning_rate=1e-5)
    for rate in (1e-5, 2.53e-6):
        progress.event("epoch.finished", stage="fine_tuning", epoch=3, epochs=10, learning_rate=rate, **EPOCH)

    first, second = (str(line["event"]) for line in lines[1:])
    assert second == f"{first}  lr 2.5e-06"


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"views": 0, "bytes": 0, "epoch_seconds": 3.0}, "augmentation: the backbone runs in every epoch of stage 1"),
        ({"views": 2, "bytes": 10**6, "seconds": None}, "augmentation: stage 1 uses 2 versions of each image, 1 MB"),
    ],
)
def test_how_stage_1_augments(lines: list[dict[str, object]], facts: dict[str, object], sentence: str) -> None:
    """The sentence has the cost of the stored features, as far as it is known."""
    Progress([ConsoleListener()]).event("views.planned", **facts)

    assert [sentence] == [line["event"] for line in lines]


def test_long_sentence(lines: list[dict[str, object]]) -> None:
    """A URI that does not fit loses the middle of its line."""
    uri = f"gs://bucket/{'x' * 200}/flowers"
    Progress([ConsoleListener()]).event("input.listed", images=1, labels=2, uri=uri)

    text = str(lines[0]["event"])
    assert COLUMNS - len("00:00:00 ") == len(text)
    assert text.startswith("1 images in 2 classes: gs://bucket/xxx")
    assert text.endswith("xxx/flowers")


@pytest.mark.parametrize("name", sorted(HIDDEN))
def test_events_without_news(lines: list[dict[str, object]], name: str) -> None:
    """They are logged at debug."""
    Progress([ConsoleListener()]).event(name, stage="fine_tuning")

    assert [{"event": name, "log_level": "debug", "stage": "fine_tuning"}] == lines


@pytest.mark.parametrize(
    ("name", "severity", "facts"),
    [
        ("run.started", "info", {"of_another_version": 1}),
        ("epoch.finished", "info", {**EPOCH, "loss": None, "epoch": 1, "epochs": 2}),
        ("run.succeeded", "info", {"message": "published"}),
        ("pod.pending", "info", {"reason": "Insufficient nvidia.com/gpu"}),
        ("stage.finished", "warning", {"stage": "fine_tuning"}),
        ("input.listed", "warning", {"images": 1, "labels": 2, "uri": "gs://b"}),
    ],
)
def test_other_events(lines: list[dict[str, object]], name: str, severity: log.Level, facts: dict[str, object]) -> None:
    """Warnings, and events without a sentence or with other facts, are logged as they are."""
    Progress([ConsoleListener()]).event(name, severity=severity, **facts)

    assert [{"event": name, "log_level": severity, **facts}] == lines


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the lines that are written without time and level."""
    texts: list[str] = []
    monkeypatch.setattr(log, "write_text", texts.extend)
    return texts


def test_failure(lines: list[dict[str, object]], written: list[str]) -> None:
    """Message and remedy are plain lines."""
    Progress([ConsoleListener()]).event(
        "run.failed", severity="error", message="no a\nno b", remedy="look", exit_code=3
    )

    assert [{"event": "run.failed", "log_level": "error", "exit_code": 3}] == lines
    assert ["no a", "no b", "look"] == written


@pytest.mark.parametrize("outcome", ["published", "already published on 2026-01-01, nothing to do"])
def test_closing_block(lines: list[dict[str, object]], written: list[str], outcome: str) -> None:
    """A run ends with the closing block, below everything else, in place of a line of its own."""
    progress = Progress([ConsoleListener()])
    progress.event("run.evaluated", **METRICS)
    progress.event("run.succeeded", message=outcome, run_uri="gs://b/runs/r", accuracy=0.9)
    assert [] == written
    progress.close()

    assert {"debug"} == {line["log_level"] for line in lines}
    assert closing.block(outcome, "gs://b/runs/r", METRICS) == written


def test_closing_block_of_a_failed_gate(written: list[str]) -> None:
    """After the failure come the figures of the model that was published below its gate."""
    progress = Progress([ConsoleListener()])
    progress.event("run.evaluated", run_uri="gs://b/runs/r", **METRICS)
    progress.event("run.failed", severity="error", message="too low", reason="Gate")
    progress.close()

    assert ["too low", *closing.block("quality gate failed", "gs://b/runs/r", METRICS)] == written


def test_no_closing_block(lines: list[dict[str, object]], written: list[str]) -> None:
    """A parent process may write it instead; facts of another version leave the sentence."""
    of_child, of_another = ConsoleListener(with_block=False), ConsoleListener()
    for listener, metrics in ((of_child, METRICS), (of_another, {"validation": {}})):
        progress = Progress([listener])
        progress.event("run.evaluated", **metrics)
        progress.event("run.succeeded", message="published", run_uri="gs://b/runs/r", accuracy=0.9)
        progress.close()

    assert [] == written
    assert ["published: accuracy 0.900, gs://b/runs/r"] == [
        line["event"] for line in lines if line["log_level"] == "info"
    ]
