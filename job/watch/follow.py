"""``finetune watch``: follow a Job of a cluster, or a run by its URI, from anywhere, and exit as it does.

It needs nothing from the job: a Job is followed through its Pods' logs and through what the API server says of Job and
Pods, a run through its status.json.
"""

from __future__ import annotations

import datetime as dt
import json
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from job.errors import DataError, SettingsError, StoppedError, UnavailableError, all_errors
from job.observability import log
from job.observability.bars import Bars
from job.observability.progress import LogListener
from job.watch.api_reader import Cluster
from job.watch.pods import container_state, how_it_ended, last_words, next_attempt, pending_because
from job.watch.replay import Replay

if TYPE_CHECKING:
    from job.observability.kube_events import Object
    from job.observability.progress import Listener


INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it: the run goes on."""

PATIENCE = 900.0
"""Seconds without a word after which a run is given up: a Job waits at most 600 between two Pods."""

_INTERVAL = 1.0  # seconds between two looks at a cluster
_STATUS_INTERVAL = 5.0  # seconds: status.json is written no more often


@dataclass(frozen=True)
class Target:
    """What is to be watched.

    Attributes:
        name: of a Job; or a run's URI or folder.
        namespace: the Job's; None: the context's.
        context: of the kubeconfig; None: the current one.
    """

    name: str
    namespace: str | None = None
    context: str | None = None


def follow(target: Target) -> int:
    """Follow the target to its end.

    Returns:
        Its exit code.

    Raises:
        FinetuneError: it cannot be followed.
    """
    terminal = log.terminal()
    listeners: list[Listener] = [LogListener(None if terminal else 0.0)]
    if terminal:
        listeners.append(Bars(terminal))
    replay = Replay(listeners, phases=terminal is not None)
    try:
        if "/" in target.name:
            return _follow_run(target.name, replay)
        return _Job(Cluster(target.namespace, target.context), target.name, replay).follow()
    except KeyboardInterrupt:
        replay.progress.event("watch.interrupted", message="the run goes on")
        return INTERRUPTED
    finally:
        replay.close()


# A run, by its status.json


def _follow_run(uri: str, replay: Replay) -> int:
    from job import storage

    store = storage.open_store(uri)
    codes = {error.reason: error.exit_code for error in all_errors()}
    last, changed = b"", time.monotonic()
    while True:
        if (found := store.read("status.json")) is None:
            raise DataError(
                f"there is no run at {store.uri}: it has no status.json",
                remedy="the URI of a run ends in /runs/ID; latest.json beside runs/ names the newest",
            )
        if found[0] != last:
            last, changed = found[0], time.monotonic()
            status = json.loads(last)
            replay.status(status)
            if status["state"] == "succeeded":
                return 0
            if status["state"] == "failed":
                return codes.get(status.get("reason"), 1)
        if time.monotonic() - changed > PATIENCE:
            stopped = json.loads(last)["state"] == "stopped"
            replay.progress.event("run.silent", severity="warning", seconds=round(PATIENCE))
            return StoppedError.exit_code if stopped else UnavailableError.exit_code
        time.sleep(_STATUS_INTERVAL)


# A Job, by what the API server says


class _Job:
    """One Job that is followed.

    Args:
        cluster: where it is.
        name: its name.
        replay: where what happens is told.
    """

    def __init__(self, cluster: Cluster, name: str, replay: Replay) -> None:
        self._cluster = cluster
        self._name = name
        self._replay = replay
        self._pods: dict[str, Object] = {}  # by UID, as they were last seen: an evicted Pod is gone when it has ended
        self._read: set[str] = set()  # whose log is read to its end
        self._reader: _LogReader | None = None
        self._told: dict[str, str] = {}
        self._code: int | None = None

    def follow(self) -> int:
        """Follow it to its end, and return its exit code."""
        heard = time.monotonic()
        job: Object | None = None
        while True:
            try:
                found = self._cluster.job(self._name)
                if found is None and job is None:
                    raise SettingsError(
                        f"there is no Job {self._name!r} in the namespace {self._cluster.namespace!r}",
                        remedy="kubectl get jobs --all-namespaces lists them; --namespace and --context choose",
                    )
                gone = found is None or (job is not None and found["metadata"]["uid"] != job["metadata"]["uid"])
                job = found or job
                assert job is not None
                if not gone:
                    self._look(job)
                heard = time.monotonic()
            except UnavailableError as error:
                self._tell("cluster", "cluster.away", error.message, severity="warning")
                if time.monotonic() - heard > PATIENCE / 3:
                    raise
                time.sleep(_INTERVAL)
                continue
            caught_up = self._read_logs()
            if gone and caught_up:
                self._tell("job", "job.deleted", "its run is kept: a Job with the same settings goes on with it")
                return StoppedError.exit_code if self._code is None else self._code
            if caught_up and (code := self._outcome(job)) is not None:
                return code
            time.sleep(_INTERVAL)

    def _tell(self, about: str, event: str, message: str, *, severity: log.Level = "info", **facts: object) -> None:
        """Tell something about the Job or a Pod once, until there is something else to tell about it."""
        if self._told.get(about) != f"{event} {message}":
            self._told[about] = f"{event} {message}"
            self._replay.progress.event(event, severity=severity, message=message, **facts)

    def _look(self, job: Object) -> None:
        pods = self._cluster.pods(job)
        self._pods |= {pod["metadata"]["uid"]: pod for pod in pods}
        for pod in pods:
            name = pod["metadata"]["name"]
            if pod["status"].get("phase") == "Pending":
                why = pending_because(pod, self._cluster.warnings(pod))
                self._tell(name, "pod.pending", why, pod=name)
            elif container_state(pod).get("running"):
                self._tell(name, "pod.running", f"on {pod['spec'].get('nodeName')}", pod=name)
        if job["spec"].get("suspend"):
            self._tell("job", "job.suspended", "a queue, or somebody, holds it back")
        elif not pods and not job["status"].get("conditions"):
            if warnings := self._cluster.warnings(job):
                self._tell("job", "job.waiting", warnings[-1], severity="warning")
        elif not job["status"].get("conditions") and (until := next_attempt(list(self._pods.values()))):
            self._tell("job", "job.backing_off", f"the next Pod comes at about {until}")

    def _read_logs(self) -> bool:
        """Tell what came of the logs, one Pod after the other; return whether all is read that there is."""
        for uid, pod in self._pods.items():
            state = container_state(pod)
            if uid in self._read or not (state.get("running") or state.get("terminated")):
                continue
            if self._reader is None:
                self._reader = _LogReader(self._cluster, pod["metadata"]["name"])
            ended = self._reader.ended.is_set()
            for line in self._reader.lines():
                self._replay.line(line)
            gone = not state.get("terminated") and self._cluster_lost(uid)
            if not ended or not (state.get("terminated") or gone):
                if ended:  # the connection was cut
                    self._reader = _LogReader(self._cluster, pod["metadata"]["name"], after=self._reader.last)
                return False
            self._reader = None
            self._read.add(uid)
            self._end_pod(pod)
        return True

    def _cluster_lost(self, uid: str) -> bool:
        pod = self._pods[uid]
        found = self._cluster.pod(pod["metadata"]["name"])
        return found is None or found["metadata"]["uid"] != uid

    def _end_pod(self, pod: Object) -> None:
        """Tell how a Pod ended, and keep its exit code."""
        self._replay.end()
        ended = container_state(pod).get("terminated") or {}
        self._code = ended.get("exitCode", self._replay.exit_code)
        name = pod["metadata"]["name"]
        said = last_words(ended.get("message"))
        facts = {key: said[key] for key in ("reason", "remedy", "run_uri") if key in said}
        self._tell(
            name,
            "pod.ended",
            how_it_ended(pod, self._code),
            severity="info" if self._code == 0 else "warning",
            pod=name,
            exit_code=self._code,
            **facts,
            **({"said": said["message"]} if said.get("message") else {}),
        )

    def _outcome(self, job: Object) -> int | None:
        for condition in job["status"].get("conditions") or ():
            if condition["status"] != "True":
                continue
            if condition["type"] == "Complete":
                self._tell("job", "job.completed", f"{len(self._pods)} Pods" if len(self._pods) != 1 else "1 Pod")
                return 0
            if condition["type"] == "Failed":
                why = f"{condition.get('reason')}: {condition.get('message')}"
                self._tell("job", "job.failed", why, severity="error")
                return self._code or 1
        return None


class _LogReader:
    """Reads one Pod's log in a thread of its own.

    Attributes:
        ended: set when there is no more to come: the container ended, or the connection did.
        last: the time of the last line.
    """

    def __init__(self, cluster: Cluster, pod: str, *, after: str = "") -> None:
        self.ended = threading.Event()
        self.last = after
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._follow, args=(cluster, pod), name="log", daemon=True).start()

    def lines(self) -> list[str]:
        """Return what came since the last call."""
        return [self._lines.get_nowait() for _ in range(self._lines.qsize())]

    def _follow(self, cluster: Cluster, pod: str) -> None:
        try:
            since = None
            if self.last:
                ago = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(self.last)
                since = int(ago.total_seconds()) + 60  # clocks differ; what was read before is left out below
            for when, line in cluster.log_lines(pod, since):
                if when > self.last:
                    self.last = when
                    self._lines.put(line)
        except Exception as error:  # noqa: BLE001  # the next look at the cluster tells what is wrong
            log.get().debug("log.cut", pod=pod, error=error)
            time.sleep(_INTERVAL)
        finally:
            self.ended.set()
