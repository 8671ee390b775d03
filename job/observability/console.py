"""The log on a terminal, for a person: an event that a person waits for is one short sentence.

The JSON log has every event with all of its facts. Here events without news are logged at debug, and warnings and
errors are shown with their facts.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from job.observability import closing, log
from job.observability.lines import INDENT
from job.observability.progress import Event, LogListener

COLUMNS = 100
"""Width of a line."""

_MIN_URI = 30  # columns that are left of a shortened URI

HIDDEN = frozenset(
    {
        "stage.first_step",
        "stage.finished",
        "training.planned",
        "run.evaluated",
        "run.planned",
        "run.published",
        "report.written",
        "weights.loaded",
        "weights.not_verified",
    }
)
"""Events that are followed by a sentence with the same news, or have none for a person."""


LIMITS: Final = MappingProxyType(
    {"store": "the store", "decoding": "decoding", "cache": "the cache's disk", "features": "computing features"}
)
"""What may limit the pass over the data, in words."""


def _input_listed(facts: Any, _: Event) -> str:
    return f"{facts['images']:,} images in {facts['labels']:,} classes: {facts['uri']}"


def _run_started(facts: Any, _: Event) -> str:
    return f"{'resuming' if facts['resumed'] else 'starting'} run {facts['run_id']}"


def _device_configured(facts: Any, _: Event) -> str:
    threads = f", {facts['threads']} threads" if facts["kind"] == "cpu" else ""
    count = f"{facts['replicas']} x " if facts.get("replicas", 1) > 1 else ""
    return f"training on {count}{facts['name']}{threads}, TensorFlow {facts['tensorflow']}, {facts['precision']}"


def _cache_opened(facts: Any, _: Event) -> str:
    megabytes = (
        sum(facts[f"{part}_bytes"] for part in ("encoded", "feature", "pixel")) + facts.get("view_bytes", 0)
    ) / 1e6
    pixels = "" if facts["pixels_kept"] else "; pixels are decoded again in each epoch"
    return f"cache: {megabytes:,.0f} MB in {facts['folder']}{pixels}"


def _images_read(facts: Any, _: Event) -> str:
    limit = LIMITS.get(facts["limited_by"], facts["limited_by"])
    return f"read {facts['images']:,} images in {log.readable(facts['seconds'])} s, limited by {limit}"


def _split_assigned(facts: Any, _: Event) -> str:
    test = f", {facts['test']:,} to test" if facts["test"] else ""
    return f"{facts['train']:,} images to train on, {facts['validation']:,} to validate{test}"


def _duplicates_found(facts: Any, _: Event) -> str:
    found = f"{facts['exact']:,} copies, {facts['near']:,} pairs of pictures that show nearly the same"
    leaking = (
        f"; {facts['leaking']:,} held-out images are, or look like, images to train on" if facts["leaking"] else ""
    )
    labels = f"; {facts['under_two_labels']:,} look like images of another class" if facts["under_two_labels"] else ""
    return found + leaking + labels


def _views_planned(facts: Any, _: Event) -> str:
    if not facts["views"]:
        return "augmentation: the backbone runs in every epoch of stage 1"
    seconds = f", about {log.readable(facts['seconds'])} s" if facts["seconds"] is not None else ""
    return (
        f"augmentation: stage 1 uses {facts['views']} versions of each image, {facts['bytes'] / 1e6:,.0f} MB{seconds}"
    )


def _stage_started(facts: Any, _: Event) -> str:
    return f"stage {facts['stage']}: {facts['epochs']} epochs, learning rate {log.readable(facts['learning_rate'])}"


def _epoch_finished(facts: Any, event: Event) -> str:
    epoch = f"epoch {facts['epoch']}/{facts['epochs']}".ljust(len(f"epoch {facts['epochs']}/{facts['epochs']}"))
    names = {"loss": "loss", "accuracy": "acc", "val_loss": "val_loss", "val_accuracy": "val_acc"}
    figures = [f"{name} {facts[fact]:.3f}" for fact, name in names.items()]
    rate, usual = facts.get("learning_rate"), event.stage and event.stage.learning_rate
    return "  ".join([epoch, *figures, *([f"lr {rate:.2g}"] if rate and usual and rate != usual else [])])


def _stage_stopped_early(facts: Any, _: Event) -> str:
    return f"stage {facts['stage']}: stopped after {facts['epochs']} epochs, {facts['epochs_saved']} saved"


def _model_chosen(facts: Any, _: Event) -> str:
    return f"keeping the weights of {facts['stage']}, epoch {facts['epoch']} (keep={facts['keep']})"


def _label_errors_found(facts: Any, _: Event) -> str:
    return f"{facts['count']:,} labels may be wrong" + (": data/label_errors.jsonl" if facts["count"] else "")


def _model_converted(facts: Any, _: Event) -> str:
    return f"converted the model: {facts['file']}, {facts['bytes'] / 1e6:.1f} MB, {facts['agreement']:.1%} same labels"


def _model_verified(facts: Any, _: Event) -> str:
    return f"the exported model gives the same answers for {facts['images']:,} images"


def _gate_compared(facts: Any, _: Event) -> str:
    accuracies = f"accuracy {facts['accuracy']:.3f}, and {facts['latest_accuracy']:.3f} of {facts['latest']}"
    return f"compared with the latest run on {facts['images']:,} images: {accuracies}"


SENTENCES: Final = MappingProxyType[str, Callable[[Any, Event], str]](
    {
        "input.listed": _input_listed,
        "cache.opened": _cache_opened,
        "cache.reused": lambda facts, _: f"reusing {facts['images']:,} of {facts['of']:,} cached images",
        "images.read": _images_read,
        "run.started": _run_started,
        "device.configured": _device_configured,
        "split.assigned": _split_assigned,
        "duplicates.found": _duplicates_found,
        "views.planned": _views_planned,
        "views.computed": lambda facts, _: f"augmented features computed in {log.readable(facts['seconds'])} s",
        "stage.started": _stage_started,
        "stage.skipped": lambda facts, _: f"stage {facts['stage']}: skipped",
        "epoch.finished": _epoch_finished,
        "stage.stopped_early": _stage_stopped_early,
        "model.chosen": _model_chosen,
        "model.verified": _model_verified,
        "gate.compared": _gate_compared,
        "label_errors.found": _label_errors_found,
        "model.converted": _model_converted,
        "weights.download_started": lambda facts, _: f"downloading weights: {facts.get('url', '')}",
        "run.succeeded": lambda facts, _: f"{facts['message']}: accuracy {facts['accuracy']:.3f}, {facts['run_uri']}",
    }
)
"""Event -> its sentence."""


class ConsoleListener(LogListener):
    """Logs events as sentences; message and remedy of a failure are plain lines, and the run ends with a closing block.

    Args:
        interval: see LogListener.
        with_block: whether to write the closing block. The parent process may write its own.
    """

    def __init__(self, interval: float | None = 10.0, *, with_block: bool = True) -> None:
        super().__init__(interval)
        self._with_block = with_block
        self._metrics: Mapping[str, object] = {}
        self._run_uri = ""
        self._block: list[str] = []

    def on_event(self, event: Event) -> None:
        """Log the event."""
        self._run_uri = str(event.facts.get("run_uri", self._run_uri))
        if event.name == "run.evaluated":
            self._metrics = event.facts
        if event.severity in ("error", "critical") and event.facts.get("message"):
            _write_failure(event)
            if event.facts.get("reason") == "Gate":
                self._prepare_block("quality gate failed")
        elif event.severity == "info" and (event.name in HIDDEN or self._is_in_block(event)):
            log.get().bind(**event.facts).log(logging.DEBUG, event.name)
        elif event.severity == "info" and (sentence := _sentence(event)):
            log.get().info(_fitting(sentence))
        else:
            super().on_event(event)

    def close(self) -> None:
        """Write the closing block."""
        log.write_text(self._block)

    def _is_in_block(self, event: Event) -> bool:
        return event.name == "run.succeeded" and self._prepare_block(str(event.facts.get("message")))

    def _prepare_block(self, outcome: str) -> bool:
        """Prepare the closing block, if what it shows is known; return whether it is."""
        with contextlib.suppress(KeyError, TypeError, ValueError):  # facts of another version, or none
            if self._with_block:
                self._block = closing.block(outcome, self._run_uri, self._metrics)
            return bool(self._metrics)
        return False


def _sentence(event: Event) -> str | None:
    """Return the event's sentence; None if it has none, or facts of another version, replayed by `finetune watch`."""
    try:
        sentence: str = SENTENCES[event.name](event.facts, event)
    except (KeyError, TypeError, ValueError):
        return None
    return sentence


def _fitting(text: str) -> str:
    """Return a text for one line: if it is too long, its longest word, a URI, loses its middle."""
    limit = min(COLUMNS, log.width() or COLUMNS) - INDENT
    uri = max(text.split(" "), key=len)
    length = max(len(uri) - max(0, len(text) - limit), _MIN_URI)
    if length >= len(uri):
        return text
    return text.replace(uri, f"{uri[: length // 2]}…{uri[len(uri) - length + length // 2 + 1 :]}")


def _write_failure(event: Event) -> None:
    message, remedy = event.facts.get("message"), event.facts.get("remedy")
    other_facts = {name: value for name, value in event.facts.items() if name not in ("message", "remedy")}
    log.get().error(event.name, **other_facts)
    log.write_text(f"{message}\n{remedy or ''}".strip().splitlines())
