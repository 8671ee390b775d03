"""The termination message: why a run ended, where ``kubectl describe`` shows it."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from job.observability import log
from job.observability.progress import Event, Listener

if TYPE_CHECKING:
    from collections.abc import Mapping


_TERMINATION_BYTES = 4096  # what the kubelet keeps of a termination message


class TerminationMessage(Listener):
    """Writes the termination message when the run fails or stops.

    Args:
        path: the Pod's terminationMessagePath.
    """

    def __init__(self, path: str = "/dev/termination-log") -> None:
        self._path = path
        self._run_uri: object = None

    def on_event(self, event: Event) -> None:
        """Write the message if this is the end."""
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
    """Leave ``document`` where Kubernetes takes a container's last words from: JSON of at most 4,096 bytes.

    Where it is too long, the longest texts are cut, and end in "…". Without such a file nothing happens: Kubernetes
    creates it, and nothing else needs it. No error is raised: the run has ended, one way or another.

    Args:
        document: reason, stage, epoch, message, remedy, run_uri: texts and whole numbers. Those that are None are left
            out.
        path: the container's terminationMessagePath.
    """
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_WRONLY | os.O_TRUNC)  # without O_CREAT
        try:
            os.write(file, _shortened(document))
        finally:
            os.close(file)


def _shortened(document: Mapping[str, object]) -> bytes:
    """Return the JSON, its texts cut to the first of 4096, 2048, 1024, … characters at which it fits."""
    given = {key: value for key, value in document.items() if value is not None}
    values = {key: value if isinstance(value, int) else log.plain(str(value)) for key, value in given.items()}
    length = _TERMINATION_BYTES
    while len(data := _cut(values, length)) > _TERMINATION_BYTES:
        length //= 2
    return data


def _cut(values: Mapping[str, object], length: int) -> bytes:
    """Return the JSON with all texts cut to ``length`` characters and an ellipsis."""
    cut = {
        key: f"{value[:length]}…" if isinstance(value, str) and len(value) > length else value
        for key, value in values.items()
    }
    return json.dumps(cut, ensure_ascii=False).encode()
