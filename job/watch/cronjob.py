"""Starts a run in a cluster: creates a Job from the template of a CronJob, as ``kubectl create job --from`` does."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from job.errors import SettingsError
from job.observability import kube_api

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.observability.kube_events import Object

MAX_NAME = 63
"""Characters in the name of a Job: it is a label of its Pods."""

RUN_ID = "finetune/run-id"
"""Annotation of a Job: the run that it was created for."""

_NEEDS = (
    "the ServiceAccount of this Pod needs get on the CronJob and create on jobs; the chart's cronjob.plan grants both"
)
_REMEDY = "check that this Pod may connect to the API server (networkPolicy.extraEgress); the next plan tries again"


@dataclass(frozen=True, kw_only=True)
class StartedJob:
    """The Job of a run.

    Attributes:
        name: of the Job.
        created: False: it existed before.
    """

    name: str
    created: bool


def job_name(cronjob: str, run_id: str, *, workers: int = 1) -> str:
    """Return the name of the Job in which a CronJob's template works on a run: each pair has a name of its own.

    It is ``CRONJOB--RUN_ID``, which can be divided in one way only as long as there is no other ``--``. Otherwise, and
    if that is too long or no name for Kubernetes, it ends in a hash of both.

    Args:
        cronjob: name of the CronJob.
        run_id: of the run.
        workers: Pods of the Job; above 1, JOB-INDEX is the hostname of each, and must be no longer than a name.
    """
    limit = MAX_NAME if workers == 1 else MAX_NAME - len(f"-{workers - 1}")
    name = f"{cronjob}--{run_id}"
    if len(name) <= limit and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*--[a-z0-9]+(-[a-z0-9]+)*", name):
        return name
    words = re.sub(r"[^a-z0-9]+", "-", f"{cronjob}-{run_id}".lower()).strip("-")
    return f"{words[: limit - 11].rstrip('-')}-{hashlib.sha256(f'{cronjob}/{run_id}'.encode()).hexdigest()[:10]}"


def start(cronjob: str, run_id: str, *, connect: Callable[[], tuple[Any, str]] = kube_api.in_cluster) -> StartedJob:
    """Create the Job of a run from a CronJob's template, unless it exists: then the run is under way, or was tried.

    Args:
        cronjob: name of the CronJob, in this Pod's namespace.
        run_id: of the run.
        connect: returns the client's ApiClient and the namespace.

    Raises:
        errors.SettingsError: there is no such CronJob, this process is in no Pod with a token, or the API server
            rejects the Job.
        errors.AccessError: the Pod's ServiceAccount may not get the CronJob or create Jobs.
        errors.UnavailableError: the API server cannot be reached, or fails.
    """
    from kubernetes import client, config

    try:
        api, namespace = connect()
    except config.ConfigException as error:
        raise SettingsError(
            f"there is no API server to create a Job at: {error}",
            remedy="--create-job is for a Pod with a ServiceAccount's token; cronjob.plan of the chart renders one",
        ) from error
    # note: the API of any object, since the typed one would drop the fields of a newer Kubernetes
    objects = client.CustomObjectsApi(api)
    found = kube_api.request(
        objects.get_namespaced_custom_object,
        *("batch", "v1", namespace, "cronjobs", cronjob),
        needs=_NEEDS,
        remedy=_REMEDY,
    )
    if found is None:
        raise SettingsError(
            f"there is no CronJob {cronjob!r} in the namespace {namespace!r}", remedy="give the name of one"
        )
    name = job_name(cronjob, run_id, workers=found["spec"]["jobTemplate"]["spec"].get("completions") or 1)
    try:
        created = kube_api.request(
            objects.create_namespaced_custom_object,
            *("batch", "v1", namespace, "jobs", job_from(found, name, run_id)),
            needs=_NEEDS,
            remedy=_REMEDY,
        )
    except client.ApiException as error:
        if error.status == 409:
            return StartedJob(name=name, created=False)
        raise SettingsError(
            f"the API server rejects the Job {name}: {error.status} {error.reason}: {kube_api.message_of(error)}",
            remedy=f"kubectl create job x --from=cronjob/{cronjob} --dry-run=server shows the same",
        ) from error
    if created is None:
        raise SettingsError(f"the namespace {namespace!r} was deleted", remedy="install the chart again")
    return StartedJob(name=name, created=True)


def job_from(cronjob: Object, name: str, run_id: str) -> Object:
    """Return the Job that ``kubectl create job NAME --from=cronjob/…`` would create, with the run as an annotation.

    The CronJob is its controller, so that its history limits apply, and it is deleted with the CronJob.

    Args:
        cronjob: as the API server returned it.
        name: of the Job.
        run_id: of the run.
    """
    template, made = cronjob["spec"]["jobTemplate"], cronjob["metadata"]
    metadata = template.get("metadata") or {}
    # note: without blockOwnerDeletion, which takes one more permission where OwnerReferencesPermissionEnforcement is on
    owner = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": made["name"],
        "uid": made["uid"],
        "controller": True,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": metadata.get("labels") or {},
            "annotations": {
                "cronjob.kubernetes.io/instantiate": "manual",
                **(metadata.get("annotations") or {}),
                RUN_ID: run_id,
            },
            "ownerReferences": [owner],
        },
        "spec": template["spec"],
    }
