"""Records Kubernetes Events on the run's Job and Pod.

The client takes a third of a second to import, so it is imported only if Events are enabled.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from job.observability import log
from job.observability.kube_api import TIMEOUT, in_cluster
from job.observability.progress import Event, Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from job.config.settings import EventsSettings, RunSettings


Object = dict[str, Any]
"""An API object, as in ``kubectl get -o json``."""

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
"""Event name -> reason of the Kubernetes Event. A failure's own reason, such as ``Data``, is put before ``Failed``."""

_NOTE_LENGTH = 1024  # limit of the API server for an Event's message, in characters


class EventRecorder(Listener):
    """Records the run's events as Events on the Job and the Pod, in its own thread.

    Training never waits for it: Events that cannot be sent in time are dropped, and the first failure is logged.

    Args:
        settings: identify this Pod.
        run: identifies its Job.
        connect: returns the client's CoreV1Api and the namespace; by default from the Pod's in-cluster configuration.
        patience: seconds that `close` waits for pending Events.
    """

    def __init__(
        self,
        settings: EventsSettings,
        run: RunSettings,
        *,
        connect: Callable[[], tuple[Any, str]] | None = None,
        patience: float = 2.0,
    ) -> None:
        # note: not in the thread: the storage imports some of the same packages, and of two threads that import modules
        # which import one another, Python gives one a module that is not complete. And a run that fails at once would
        # have to wait for it.
        import kubernetes  # noqa: F401

        pod = {"apiVersion": "v1", "kind": "Pod", "name": settings.pod_name, "uid": settings.pod_uid}
        job = {"apiVersion": "batch/v1", "kind": "Job", "name": run.job_name, "uid": run.job_uid}
        self._objects = [target for target in (job, pod) if target["name"] and target["uid"]]
        self._instance = settings.pod_name
        self._connect = connect or _in_cluster
        self._patience = patience
        self._failed = False
        self._sequence = itertools.count()
        # Longer than the Events of any run; an API server that is down for days must not fill the memory.
        self._queue: queue.Queue[tuple[str, str, str] | None] = queue.Queue(maxsize=100)
        self._thread = threading.Thread(target=self._send_all, name="events", daemon=True)
        self._thread.start()

    def on_event(self, event: Event) -> None:
        """Queue the event if it has a Kubernetes Event."""
        if event.name not in _REASONS:
            return
        reason = _REASONS[event.name]
        if event.name == "run.started" and event.facts.get("resumed"):
            reason = "Resumed"
        if event.name == "run.failed":
            reason = f"{event.facts.get('reason', '')}{reason}"
        kind = "Normal" if event.severity in ("debug", "info") else "Warning"
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait((kind, reason, _note(event)))

    def close(self) -> None:
        """Send the pending Events, for a limited time."""
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(self._patience)

    def _send_all(self) -> None:
        api: Any = None
        while (item := self._queue.get()) is not None:
            try:
                if api is None:
                    api, namespace = self._connect()
                for involved in self._objects:
                    body = self._body(namespace, involved, *item)
                    api.create_namespaced_event(namespace, body, _request_timeout=TIMEOUT)
            except Exception as error:  # noqa: BLE001  # no error may stop the training
                if not self._failed:
                    log.get().warning("events.not_recorded", error=getattr(error, "reason", None) or error)
                self._failed = True

    def _body(self, namespace: str, involved: Mapping[str, str], kind: str, reason: str, note: str) -> Object:
        now = log.timestamp()
        seconds = f"{now.partition('.')[0]}Z"
        return {
            "metadata": {
                "name": f"{involved['name']}.{time.time_ns():x}{next(self._sequence):x}",
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
    """Return an Event's text: message and remedy if there are any, else the facts."""
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
    from kubernetes import client

    api, namespace = in_cluster()
    return client.CoreV1Api(api), namespace
