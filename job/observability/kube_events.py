"""Kubernetes: Events on the run's Job and Pod, and what ``finetune watch`` reads. No other module imports its client.

The client takes a second to import: that happens in the recorder's thread, or in ``watch``, and in no other run.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from job.observability import log
from job.observability.progress import Event, Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from job.config.settings import EventsSettings


Object = dict[str, Any]
"""One of the API's objects, as ``kubectl get -o json`` shows it."""

CONTAINER: Final = "finetune"
"""The name of the job's container in its Pod."""

_REASONS: Final = {
    "run.started": "Started",
    "images.quarantined": "Quarantined",
    "stage.started": "StageStarted",
    "stage.finished": "StageFinished",
    "run.published": "Published",
    "run.succeeded": "Succeeded",
    "run.stopped": "Stopped",
    "run.failed": "Failed",
}
"""What is worth an Event, and its reason. A failure's own reason, such as ``Data``, is put before ``Failed``."""

_NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
_NOTE_LENGTH = 1024  # characters that the API server takes of an Event's message
_TIMEOUT = (3.0, 5.0)  # seconds to connect and to read


class EventRecorder(Listener):
    """Records what happens as Events on the Job and the Pod, in a thread of its own.

    The training never waits for it: what the API server does not take in time is lost, and the log says so once.

    Args:
        settings: who this Pod is.
        job_uid: UID of its Job.
        connect: returns the client's CoreV1Api and the namespace; by default those that a Pod finds inside its cluster.
        patience: seconds that closing waits for what is still to be sent.
    """

    def __init__(
        self,
        settings: EventsSettings,
        job_uid: str,
        *,
        connect: Callable[[], tuple[Any, str]] | None = None,
        patience: float = 2.0,
    ) -> None:
        pod = {"apiVersion": "v1", "kind": "Pod", "name": settings.pod_name, "uid": settings.pod_uid}
        job = {"apiVersion": "batch/v1", "kind": "Job", "name": settings.job_name, "uid": job_uid}
        self._objects = [one for one in (job, pod) if one["name"] and one["uid"]]
        self._instance = settings.pod_name
        self._connect = connect or _in_cluster
        self._patience = patience
        self._failed = False
        self._numbers = itertools.count()
        # Longer than any run's own Events; an API server that is away for days must not fill the memory.
        self._waiting: queue.Queue[tuple[str, str, str] | None] = queue.Queue(maxsize=100)
        self._thread = threading.Thread(target=self._send_all, name="events", daemon=True)
        self._thread.start()

    def on_event(self, event: Event) -> None:
        """Take down what is worth an Event."""
        if event.name not in _REASONS:
            return
        reason = _REASONS[event.name]
        if event.name == "run.started" and event.facts.get("resumed"):
            reason = "Resumed"
        if event.name == "run.failed":
            reason = f"{event.facts.get('reason', '')}{reason}"
        kind = "Normal" if event.severity in ("debug", "info") else "Warning"
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait((kind, reason, _note(event)))

    def close(self) -> None:
        """Wait for what is still to be sent, but not for long."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(self._patience)

    def _send_all(self) -> None:
        api: Any = None
        while (told := self._waiting.get()) is not None:
            try:
                if api is None:
                    api, namespace = self._connect()
                for involved in self._objects:
                    body = self._body(namespace, involved, *told)
                    api.create_namespaced_event(namespace, body, _request_timeout=_TIMEOUT)
            except Exception as error:  # noqa: BLE001  # whatever it is, training goes on
                if not self._failed:
                    log.get().warning("events.not_recorded", error=getattr(error, "reason", None) or error)
                self._failed = True

    def _body(self, namespace: str, involved: Mapping[str, str], kind: str, reason: str, note: str) -> Object:
        now = log.timestamp()
        seconds = f"{now.partition('.')[0]}Z"
        return {
            "metadata": {
                "name": f"{involved['name']}.{time.time_ns():x}{next(self._numbers):x}",
                "namespace": namespace,
            },
            "involvedObject": {**involved, "namespace": namespace},
            "type": kind,
            "reason": reason,
            "message": note,
            "count": 1,
            "firstTimestamp": seconds,
            "lastTimestamp": seconds,
            "source": {"component": CONTAINER},
            "reportingComponent": CONTAINER,
            "reportingInstance": self._instance,
        }


def _note(event: Event) -> str:
    """Return an Event's text: the message and the remedy where there are any, else the facts."""
    facts = event.facts
    if message := facts.get("message"):
        text = f"{message}: {facts['remedy']}" if facts.get("remedy") else str(message)
        if facts.get("run_uri"):
            text += f" ({facts['run_uri']})"
    else:
        text = " ".join(f"{key}={log.readable(value)}" for key, value in facts.items())
    text = log.printable(text or event.name)
    return text if len(text) <= _NOTE_LENGTH else f"{text[: _NOTE_LENGTH - 1]}…"


def _in_cluster() -> tuple[Any, str]:
    from kubernetes import client, config

    configuration = client.Configuration()
    config.load_incluster_config(client_configuration=configuration)
    configuration.retries = False  # an Event is not worth waiting for, nor lines in the log
    with open(_NAMESPACE_FILE, encoding="utf-8") as file:  # noqa: PTH123  # one line is enough
        return client.CoreV1Api(client.ApiClient(configuration)), file.read().strip()
