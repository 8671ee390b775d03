"""The log on a terminal, for a person: an event that a person waits for is one short sentence.

The JSON log has every event with all of its facts. Here events without news are logged at debug, and warnings and
errors are shown with their facts.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Final

from job.observability import log
from job.observability.progress import Event, LogListener

COLUMNS = 100
"""Width of a line."""

HIDDEN = frozenset({"stage.first_step", "stage.finished", "run.published", "weights.loaded", "weights.not_verified"})
"""Events that are followed by a sentence with the same news, or have none for a person."""


def _input_listed(facts: Any, _: Event) -> str:
    return f"{facts['images']:,} images in {facts['labels']:,} classes: {facts['uri']}"


def _run_started(facts: Any, _: Event) -> str:
    return f"{'resuming' if facts['resumed'] else 'starting'} run {facts['run_id']}"


def _device_configured(facts: Any, _: Event) -> str:
    threads = f", {facts['threads']} threads" if facts["kind"] == "cpu" else ""
    return f"training on {facts['name']}{threads}, TensorFlow {facts['tensorflow']}, {facts['precision']}"


def _split_assigned(facts: Any, _: Event) -> str:
    test = f", {facts['test']:,} to test" if facts["test"] else ""
    return f"{facts['train']:,} images to train on, {facts['validation']:,} to validate{test}"


def _stage_started(facts: Any, _: Event) -> str:
    return f"stage {facts['stage']}: {facts['epochs']} epochs, learning rate {log.readable(facts['learning_rate'])}"


def _epoch_finished(facts: Any, event: Event) -> str:
    epoch = f"epoch {event.stage.epochs_done}/{event.stage.epochs}" if event.stage else f"epoch {facts['epoch']}"
    names = {"loss": "loss", "accuracy": "acc", "val_loss": "val_loss", "val_accuracy": "val_acc"}
    return "  ".join([epoch, *(f"{name} {facts[fact]:.3f}" for fact, name in names.items())])


def _model_chosen(facts: Any, _: Event) -> str:
    return f"keeping the weights of {facts['stage']}, epoch {facts['epoch']} of the run (keep={facts['keep']})"


def _model_verified(facts: Any, _: Event) -> str:
    return f"the exported model gives the same answers for {facts['images']:,} images"


SENTENCES: Final = MappingProxyType[str, Callable[[Any, Event], str]](
    {
        "input.listed": _input_listed,
        "run.started": _run_started,
        "device.configured": _device_configured,
        "split.assigned": _split_assigned,
        "stage.started": _stage_started,
        "stage.skipped": lambda facts, _: f"stage {facts['stage']}: skipped",
        "epoch.finished": _epoch_finished,
        "model.chosen": _model_chosen,
        "model.verified": _model_verified,
        "weights.download_started": lambda facts, _: f"downloading weights: {facts.get('url', '')}",
        "run.succeeded": lambda facts, _: f"{facts['message']}: accuracy {facts['accuracy']:.3f}, {facts['run_uri']}",
    }
)
"""Event -> its sentence."""


class ConsoleListener(LogListener):
    """Logs events as sentences; message and remedy of a failure are plain lines.

    Args:
        interval: see LogListener.
    """

    def on_event(self, event: Event) -> None:
        """Log the event."""
        if event.severity in ("error", "critical") and event.facts.get("message"):
            _write_failure(event)
        elif event.severity == "info" and event.name in HIDDEN:
            log.get().bind(**event.facts).log(logging.DEBUG, event.name)
        elif event.severity == "info" and (sentence := _sentence(event)):
            log.get().info(_fitting(sentence))
        else:
            super().on_event(event)


def _sentence(event: Event) -> str | None:
    """Return the event's sentence; None if it has none, or facts of another version, replayed by `finetune watch`."""
    try:
        sentence: str = SENTENCES[event.name](event.facts, event)
    except (KeyError, TypeError, ValueError):
        return None
    return sentence


def _fitting(text: str) -> str:
    """Return a text that fits a line of `COLUMNS`: a long one loses its middle, since the end of a URI says most."""
    free = COLUMNS - len("00:00:00 [info     ] ")
    return text if len(text) <= free else f"{text[: free // 2]}…{text[len(text) - free + free // 2 + 1 :]}"


def _write_failure(event: Event) -> None:
    message, remedy = event.facts.get("message"), event.facts.get("remedy")
    other_facts = {name: value for name, value in event.facts.items() if name not in ("message", "remedy")}
    log.get().error(event.name, **other_facts)
    for line in f"{message}\n{remedy or ''}".strip().splitlines():
        # Object names are untrusted input: escape control sequences.
        sys.stderr.write((line if line.isprintable() else repr(line)[1:-1]) + "\n")
