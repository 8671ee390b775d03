"""Human-readable descriptions of a Pod's status."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any

from job.errors import exit_codes
from job.observability.kube_events import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from job.observability.kube_events import Object

TRAINER_CONTAINER = "node"
"""Name of the container in the Jobs of Kubeflow Trainer."""

INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
"""Of each Pod of an Indexed Job."""


def job_container(spec: Object) -> str:
    """Return the name of the job's container: the chart's, Kubeflow Trainer's, or the first, as of kubectl create job.

    Args:
        spec: of a Pod, or of the template of a Job.
    """
    names = [container["name"] for container in spec.get("containers") or ()]
    first = names[0] if names else CONTAINER
    return next((name for name in (CONTAINER, TRAINER_CONTAINER) if name in names), first)


def container_state(pod: Object) -> dict[str, Any]:
    """Return the state of the job's container: {"running": …}, {"waiting": …}, {"terminated": …}, or {} if unknown."""
    name = job_container(pod["spec"])
    for status in pod["status"].get("containerStatuses") or ():
        if status["name"] == name:
            return dict(status.get("state") or {})
    return {}


def worker_index(pod: Object) -> int | None:
    """Return which worker of its Job a Pod is, counted from 0; None in a Job that is not indexed."""
    index = (pod["metadata"].get("annotations") or {}).get(INDEX_ANNOTATION)
    return None if index is None else int(index)


def pending_reason(pod: Object, warnings: Sequence[str]) -> str:
    """Return why a Pod is not running yet.

    Args:
        pod: the Pod.
        warnings: the cluster's warnings about it.
    """
    status = pod["status"]
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason')}: {condition.get('message')}"
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"{waiting['reason']}: {waiting.get('message', '')}"
    return warnings[-1] if warnings else "its container is being created"


def describe_end(pod: Object, code: int | None) -> str:
    """Return how a Pod ended and how its Job reacts: "Evicted: …", "exit code 3: the data are wrong … (…)"."""
    for condition in pod["status"].get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return f"{condition.get('reason')}: {condition.get('message')} (does not count)"
    if ended_by_kubelet := _describe_end_by_kubelet(pod["status"]):
        return ended_by_kubelet
    if code is None:
        return "its container status is lost, so the reason is unknown"
    return describe_code(code, (container_state(pod).get("terminated") or {}).get("reason"))


def describe_code(code: int, reason: str | None = None) -> str:
    """Return the meaning of an exit code and how the Job reacts: "exit code 3: the data are wrong … (…)".

    Args:
        code: of the container.
        reason: the kubelet's, such as OOMKilled, if known.
    """
    codes = exit_codes()
    if code in codes:
        meaning, action = codes[code]
    else:
        killed = "out of memory: raise resources.limits.memory" if reason == "OOMKilled" else f"signal {code - 128}"
        meaning, action = (f"killed, {killed}" if code > 128 else "unknown"), "Count"
    reaction = {"Complete": "", "Count": " (counts)", "Ignore": " (does not count)", "FailJob": " (the Job has failed)"}
    return f"exit code {code}: {meaning}{reaction[action]}"


def deciding_pod(condition: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return name and exit code of the Pod that failed its Job by a rule of the podFailurePolicy; None if none did.

    The Job's controller writes them into the condition's message, and nowhere else.

    Args:
        condition: of the Job, of type Failed.
    """
    if condition.get("reason") != "PodFailurePolicy":
        return None
    found = re.search(r"for pod \S+/(\S+) failed with exit code (\d+)", condition.get("message") or "")
    return (found[1], int(found[2])) if found else None


def counts(pod: Object, code: int | None) -> bool:
    """Return whether the Job counts the failed end of a Pod: not a disruption, and no exit code that is ignored."""
    conditions = pod["status"].get("conditions") or ()
    is_disrupted = any(item["type"] == "DisruptionTarget" and item["status"] == "True" for item in conditions)
    return not is_disrupted and (code is None or exit_codes().get(code, ("", "Count"))[1] in ("Count", "FailJob"))


def was_rejected(pod: Object) -> bool:
    """Return whether the kubelet ended a Pod whose container never started: there is neither a log nor an exit code."""
    state = container_state(pod)
    return pod["status"].get("phase") == "Failed" and not (state.get("running") or state.get("terminated"))


def _describe_end_by_kubelet(status: dict[str, Any]) -> str | None:
    """Return why the kubelet ended or rejected a Pod; None if it did not.

    An eviction for local disk sets no DisruptionTarget and comes again in the next Pod, so that it needs a remedy. A
    rejected Pod has no container status: no rule of the podFailurePolicy matches, and it counts.
    """
    reason, message = status.get("reason"), status.get("message", "").strip()
    if reason == "Evicted" and any(word in message for word in ("ephemeral", "emptyDir", "EmptyDir")):
        return (
            f"Evicted: local disk: {message} (the next Pod is evicted as well: raise cache.sizeLimit, or lower "
            "config.cache.max_bytes)"
        )
    if reason and not status.get("containerStatuses"):
        return f"{reason}: {message} (rejected by the kubelet, counts)"
    return None


def next_attempt_time(pods: Sequence[Object]) -> str | None:
    """Return the time of day at which the Job creates its next Pod; None while a Pod is alive.

    The Job controller's back-off is 10 s after the first failed Pod, doubles with each failure, and is capped at 10
    minutes.

    Args:
        pods: of the Job; of one worker where each has a back-off of its own.
    """
    terminated = [container_state(pod).get("terminated") for pod in pods]
    failed = [state for state in terminated if state and state.get("exitCode")]
    # A container that the kubelet could not find when it ended the Pod (ContainerStatusUnknown) has no time.
    times = [state["finishedAt"] for state in failed if state.get("finishedAt")]
    if not times or not all(terminated):
        return None
    next_start = dt.datetime.fromisoformat(max(times)) + dt.timedelta(seconds=min(600, 10 * 2 ** (len(failed) - 1)))
    return f"{next_start.astimezone():%H:%M:%S}"


def parse_termination_message(message: str | None) -> dict[str, Any]:
    """Parse a termination message; if it is not JSON, as after a kill, return its last line as "message"."""
    try:
        document = json.loads(message or "")
    except ValueError:
        return {"message": message.strip().splitlines()[-1]} if message and message.strip() else {}
    return document if isinstance(document, dict) else {}
