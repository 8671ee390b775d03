"""The termination message, which ``kubectl describe`` shows: why the run ended."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from job.observability import log
from job.observability.progress import Event, Listener

if TYPE_CHECKING:
    from collections.abc import Mapping


_TERMINATION_BYTES = 4096  # limit of the kubelet


class TerminationMessage(Listener):
    """Writes the termination message when the run fails or stops.

    Args:
        path: the Pod's terminationMessagePath.
    """

    def __init__(self, path: str = "/dev/termination-log") -> None:
        self._path = path
        self._run_uri: object = None

    def on_event(self, event: Event) -> None:
        """Write the message if the run ended."""
        self._run_uri = event.facts.get("run_uri", self._run_uri)
        if event.name in ("run.failed", "run.stopped"):
            stage = event.stage
            write_termination_message(
                {
                    "reason": event.facts.get("reason"),
                    "stage": stage and stage.name,
                    "epoch": stage and stage.epoch,
                    "message": event.facts.get("message"),
                    "remedy": event.facts.get("remedy"),
                    "run_uri": self._run_uri,
                },
                self._path,
            )


def write_termination_message(document: Mapping[str, object], path: str = "/dev/termination-log") -> None:
    """Write ``document`` as the container's termination message: JSON of at most 4,096 bytes.

    If it is too long, the longest texts are truncated and end in "…". If the file does not exist, nothing is written:
    Kubernetes creates it, and outside Kubernetes nothing reads it. No error is raised: the run has ended anyway.

    Args:
        document: reason, stage, epoch, message, remedy, run_uri: texts and integers. None is left out.
        path: the container's terminationMessagePath.
    """
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_WRONLY | os.O_TRUNC)  # without O_CREAT
        try:
            os.write(file, _encode(document))
        finally:
            os.close(file)


def _encode(document: Mapping[str, object]) -> bytes:
    """Return the JSON, with texts truncated to the first of 4096, 2048, 1024, … characters at which it fits."""
    present = {key: value for key, value in document.items() if value is not None}
    values = {key: value if isinstance(value, int) else log.plain(str(value)) for key, value in present.items()}
    length = _TERMINATION_BYTES
    while len(data := _truncate(values, length)) > _TERMINATION_BYTES:
        length //= 2
    return data


def _truncate(values: Mapping[str, object], length: int) -> bytes:
    """Return the JSON with all texts truncated to ``length`` characters and an ellipsis."""
    truncated = {
        key: f"{value[:length]}…" if isinstance(value, str) and len(value) > length else value
        for key, value in values.items()
    }
    return json.dumps(truncated, ensure_ascii=False).encode()
