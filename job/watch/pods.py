"""What a Pod's status says to a person."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

from job.errors import exit_codes
from job.observability.kube_events import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.observability.kube_events import Object


# What the API server's objects say, in words


def container_state(pod: Object) -> dict[str, Any]:
    """Return the state of the job's container: {"running": …}, {"waiting": …}, {"terminated": …} or {}."""
    for status in pod["status"].get("containerStatuses") or ():
        if status["name"] == CONTAINER:
            return dict(status.get("state") or {})
    return {}


def pending_because(pod: Object, warnings: Sequence[str]) -> str:
    """Return why a Pod does not run yet.

    Args:
        pod: the Pod.
        warnings: what the cluster warns of about it.
    """
    status = pod["status"]
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason')}: {condition.get('message')}"
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"{waiting['reason']}: {waiting.get('message', '')}"
    return warnings[-1] if warnings else "its container is being made"


def how_it_ended(pod: Object, code: int | None) -> str:
    """Return how a Pod ended, and what its Job makes of that: "evicted …", "exit code 3: the data are wrong …"."""
    for condition in pod["status"].get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return f"{condition.get('reason')}: {condition.get('message')} (does not count)"
    reason = (container_state(pod).get("terminated") or {}).get("reason")
    if code is None:
        return "it is gone, and nobody saw how"
    known = exit_codes()
    if code in known:
        meaning, action = known[code]
    else:
        killed = "out of memory: raise resources.limits.memory" if reason == "OOMKilled" else f"signal {code - 128}"
        meaning, action = (f"killed, {killed}" if code > 128 else "unknown"), "Count"
    does = {"Complete": "", "Count": " (counts)", "Ignore": " (does not count)", "FailJob": " (the Job has failed)"}
    return f"exit code {code}: {meaning}{does[action]}"


def next_attempt(pods: Sequence[Object]) -> str | None:
    """Return when the Job makes its next Pod, as a time of day; None while one is alive.

    The controller waits 10 s after the first failed Pod and twice as long after each more, at most 10 minutes.
    """
    ended = [container_state(pod).get("terminated") for pod in pods]
    failed = [one for one in ended if one and one.get("exitCode")]
    if not failed or not all(ended):
        return None
    latest = max(one["finishedAt"] for one in failed)
    until = dt.datetime.fromisoformat(latest) + dt.timedelta(seconds=min(600, 10 * 2 ** (len(failed) - 1)))
    return f"{until.astimezone():%H:%M:%S}"


def last_words(message: str | None) -> dict[str, Any]:
    """Return the JSON of a termination message; where it is none, as after a kill, its end as "message"."""
    try:
        words = json.loads(message or "")
    except ValueError:
        return {"message": message.strip().splitlines()[-1]} if message and message.strip() else {}
    return words if isinstance(words, dict) else {}
