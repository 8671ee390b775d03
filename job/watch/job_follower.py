"""Follows a Job in a cluster until it ends, through its Pods' logs and the API server's objects."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from job.errors import FinetuneError, StoppedError, UnavailableError, UsageError
from job.watch.ends import Ends
from job.watch.log_reader import LogReader
from job.watch.pods import (
    container_state,
    deciding_pod,
    describe_code,
    describe_end,
    next_attempt_time,
    parse_termination_message,
    pending_reason,
    was_rejected,
    worker_index,
)
from job.watch.record import find_end, read_ends

if TYPE_CHECKING:
    from collections.abc import Mapping

    from job.observability import log
    from job.observability.kube_events import Object
    from job.watch.api_reader import Cluster
    from job.watch.replay import Replay

MAX_OUTAGE = 300.0
"""Seconds without an answer of the API server after which watching gives up."""

_POLL_INTERVAL = 1.0  # seconds between two polls of a cluster


class JobFollower:
    """Follows one Job: the log of its only worker, or of worker 0, and the state of all of them.

    Args:
        cluster: of the Job.
        name: of the Job.
        replay: receives the events.
    """

    def __init__(self, cluster: Cluster, name: str, replay: Replay) -> None:
        self._cluster = cluster
        self._name = name
        self._replay = replay
        self._pods: dict[str, Object] = {}  # by UID, as last seen: an evicted Pod is deleted as soon as it ends
        self._listed: set[str] = set()  # UIDs of the Pods that there are
        self._finished_logs: set[str] = set()  # UIDs of Pods whose log is read completely, or whose end is reported
        self._reader: LogReader | None = None
        self._last_reports: dict[str, str] = {}  # subject -> event and message
        self._code: int | None = None  # of the last Pod whose log is read
        self._ends = Ends()

    def follow(self) -> int:
        """Follow the Job until it ends, and return its exit code."""
        last_contact = time.monotonic()
        job: Object | None = None
        while True:
            try:
                found = self._cluster.job(self._name)
                if found is None and job is None:
                    raise UsageError(
                        f"there is no Job {self._name!r} in the namespace {self._cluster.namespace!r}",
                        remedy="kubectl get jobs --all-namespaces lists them; --namespace and --context choose",
                    )
                is_deleted = found is None or (job is not None and found["metadata"]["uid"] != job["metadata"]["uid"])
                job = found or job
                assert job is not None
                pods = self._list_pods(job)
                if not is_deleted:
                    self._report_status(job, pods)
                last_contact = time.monotonic()
            except UnavailableError as error:
                self._report("cluster", "cluster.unreachable", error.message, severity="warning")
                if time.monotonic() - last_contact > MAX_OUTAGE:
                    raise
                time.sleep(_POLL_INTERVAL)
                continue
            caught_up = self._read_logs()
            if is_deleted and caught_up:
                self._report("job", "job.deleted", "its run is kept: a Job with the same settings resumes it")
                return StoppedError.exit_code if self._code is None else self._code
            if caught_up and (code := self._outcome(job)) is not None:
                return code
            time.sleep(_POLL_INTERVAL)

    def _report(self, subject: str, event: str, message: str, *, severity: log.Level = "info", **facts: object) -> None:
        """Emit an event about the Job or a Pod unless it repeats the last one about the same subject."""
        if self._last_reports.get(subject) != f"{event} {message}":
            self._last_reports[subject] = f"{event} {message}"
            self._replay.progress.event(event, severity=severity, message=message, **facts)

    def _list_pods(self, job: Object) -> list[Object]:
        pods = self._cluster.pods(job)
        self._pods |= {pod["metadata"]["uid"]: pod for pod in pods}
        self._listed = {pod["metadata"]["uid"] for pod in pods}
        return pods

    def _report_status(self, job: Object, pods: list[Object]) -> None:
        for pod in pods:
            name = pod["metadata"]["name"]
            if pod["status"].get("phase") == "Pending":
                reason = pending_reason(pod, self._cluster.warnings(pod))
                self._report(name, "pod.pending", reason, pod=name)
            elif container_state(pod).get("running"):
                self._report(name, "pod.running", f"on {pod['spec'].get('nodeName')}", pod=name)
        if job["spec"].get("suspend"):
            self._report("job", "job.suspended", "waiting until the queue or the user that suspended it resumes it")
        elif not job["status"].get("conditions"):
            if len(pods) < job["spec"].get("parallelism", 1) and (warnings := self._cluster.warnings(job)):
                self._report("job", "job.waiting", warnings[-1], severity="warning")
            elif pods:
                self._report_back_off()

    def _report_back_off(self) -> None:
        """Report when the next Pod comes; each worker has a back-off of its own."""
        for index in {worker_index(pod): None for pod in self._pods.values()}:
            next_start = next_attempt_time([pod for pod in self._pods.values() if worker_index(pod) == index])
            if next_start:
                subject, owner = ("job", "") if index is None else (f"worker {index}", f" of worker {index}")
                self._report(subject, "job.backing_off", f"the next Pod{owner} comes at about {next_start}")

    def _read_logs(self) -> bool:
        """Replay new log lines, one Pod after the other; return whether all logs are read completely.

        Of the workers above 0 only the ends are reported.
        """
        others = [pod for pod in self._pods.values() if worker_index(pod) and not self._has_ended(pod)]
        for uid, pod in self._pods.items():
            if worker_index(pod):
                continue
            state = container_state(pod)
            if uid not in self._finished_logs and was_rejected(pod):
                self._finished_logs.add(uid)
                self._end_pod(pod)
            if uid in self._finished_logs or not (state.get("running") or state.get("terminated")):
                continue
            if self._reader is None:
                self._reader = LogReader(self._cluster, pod)
            ended = self._reader.ended.is_set()
            for line in self._reader.lines():
                self._replay.line(line)
            is_deleted = not state.get("terminated") and self._is_deleted(uid)
            if not ended or not (state.get("terminated") or is_deleted):
                if ended:  # the connection was lost
                    self._reader = LogReader(self._cluster, pod, after=self._reader.last)
                return False
            self._reader = None
            self._finished_logs.add(uid)
            self._end_pod(pod)
        return not others

    def _has_ended(self, pod: Object) -> bool:
        """Return whether a Pod that is not worker 0's has ended, or has not started, and report its end once."""
        uid, state = pod["metadata"]["uid"], container_state(pod)
        if uid in self._finished_logs or not (state or was_rejected(pod)):
            return True
        if state.get("waiting"):
            return True
        if state.get("running") and uid in self._listed:
            return False
        self._finished_logs.add(uid)
        self._end_pod(pod)
        return True

    def _is_deleted(self, uid: str) -> bool:
        pod = self._pods[uid]
        found = self._cluster.pod(pod["metadata"]["name"])
        return found is None or found["metadata"]["uid"] != uid

    def _end_pod(self, pod: Object) -> None:
        """Report how a Pod ended; where its log is read, store its exit code."""
        terminated, index = container_state(pod).get("terminated") or {}, worker_index(pod)
        code: int | None = terminated.get("exitCode")
        if not index:
            self._replay.end()
            code = self._code = terminated.get("exitCode", self._replay.exit_code)
        self._ends.add(pod, code)
        document = parse_termination_message(terminated.get("message"))
        more = {} if index is None else {"worker": index}
        self._report_end(pod["metadata"]["name"], code, describe_end(pod, code), document, **more)

    def _report_end(
        self, pod: str, code: int | None, description: str, document: Mapping[str, object], **more: object
    ) -> None:
        """Report the end of a Pod.

        Args:
            pod: its name.
            code: its exit code; None: unknown.
            description: how it ended.
            document: reason, message, remedy and run_uri, as in a termination message; each may be missing.
            more: further facts.
        """
        facts = {key: document[key] for key in ("reason", "remedy", "run_uri") if key in document}
        said = {"said": document["message"]} if document.get("message") else {}
        level: log.Level = "info" if code == 0 else "warning"
        self._report(pod, "pod.ended", description, severity=level, pod=pod, exit_code=code, **more, **facts, **said)

    def _outcome(self, job: Object) -> int | None:
        for condition in job["status"].get("conditions") or ():
            if condition["status"] != "True" or condition["type"] not in ("Complete", "Failed"):
                continue
            is_complete = condition["type"] == "Complete"
            if not self._pods or (not is_complete and self._ends.is_deciding_unknown(job, condition)):
                self._report_recorded_end(job, condition)
            elif not is_complete:
                self._code = self._ends.deciding_code(condition) or self._code
            if is_complete:
                pods = len(self._pods)
                count = "1 Pod" if pods == 1 else f"{pods} Pods" if pods else "its Pods are gone"
                self._report("job", "job.completed", count)
                return 0
            reason = f"{condition.get('reason')}: {condition.get('message')}"
            self._report("job", "job.failed", reason, severity="error")
            return self._code or 1
        return None

    def _report_recorded_end(self, job: Object, condition: Mapping[str, Any]) -> None:
        """Report the last end in the Job's record, and store its exit code; where that cannot be read, say so."""
        pod, self._code = deciding_pod(condition) or ("", None)
        try:
            end = find_end(read_ends(job), pod, others={found["metadata"]["name"] for found in self._pods.values()})
        except FinetuneError as error:
            message = f"the last Pod is gone, and {error.message}"
            self._report("record", "job.record_unreadable", message, severity="warning", remedy=error.remedy)
            return
        self._code = self._code if end.exit_code is None else end.exit_code
        description = "it is gone and has recorded no end: it was killed, or its node was lost"
        if self._code is not None:
            description = describe_code(self._code)
        self._report_end(end.pod, self._code, description, end.facts, node=end.node)
