"""A Pod as the API server describes it."""

from __future__ import annotations

from typing import Any


def pod(
    *, state: dict[str, Any] | None = None, phase: str = "Pending", container: str = "finetune", **status: object
) -> dict[str, Any]:
    """Return a Pod whose container is in a state."""
    statuses = [{"name": "istio-proxy", "state": {"running": {}}}]
    if state:
        statuses.append({"name": container, "state": state})
    spec = {"nodeName": "n", "containers": [{"name": container}, {"name": "istio-proxy"}]}
    return {"spec": spec, "status": {"phase": phase, "containerStatuses": statuses, **status}}


def of_worker(index: int, found: dict[str, Any], *, name: str = "") -> dict[str, Any]:
    """Return a Pod as that of a worker of an Indexed Job."""
    name = name or f"p-{index}"
    annotations = {"batch.kubernetes.io/job-completion-index": str(index)}
    return {"metadata": {"name": name, "uid": name, "annotations": annotations}, **found}


def ended(code: int, finished: str = "2026-01-01T00:00:00Z", **more: object) -> dict[str, Any]:
    """Return a Pod that has ended."""
    return pod(state={"terminated": {"exitCode": code, "finishedAt": finished, **more}}, phase="Failed")
