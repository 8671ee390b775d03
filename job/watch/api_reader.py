"""What ``finetune watch`` reads of a cluster: a Job, its Pods, their Events and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from job.errors import AccessError, SettingsError, UnavailableError
from job.observability.kube_events import _TIMEOUT, CONTAINER, Object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Cluster:
    """What ``watch`` reads of a cluster: a Job, its Pods, their Events and logs.

    Args:
        namespace: where the Job is; None: that of the context.
        context: of the kubeconfig; None: the current one.

    Raises:
        SettingsError: there is no such kubeconfig or context.
    """

    def __init__(self, namespace: str | None = None, context: str | None = None) -> None:
        from kubernetes import client, config

        try:
            contexts, current = config.list_kube_config_contexts()
            chosen = next((one for one in contexts if one["name"] == context), current)
            configuration = client.Configuration()
            config.load_kube_config(context=context, client_configuration=configuration)
        except (config.ConfigException, OSError) as error:
            raise SettingsError(
                f"there is no usable kubeconfig: {error}",
                remedy="set KUBECONFIG, or name a context of it with --context",
            ) from error
        configuration.retries = False  # watch asks again every second
        self.namespace = namespace or chosen["context"].get("namespace") or "default"
        self._api = client.ApiClient(configuration)
        self._core = client.CoreV1Api(self._api)
        self._batch = client.BatchV1Api(self._api)

    def job(self, name: str) -> Object | None:
        """Return the Job, None where there is none."""
        return self._get(self._batch.read_namespaced_job, name, self.namespace)

    def pods(self, job: Object) -> list[Object]:
        """Return the Job's Pods, the oldest first."""
        selector = f"batch.kubernetes.io/controller-uid={job['metadata']['uid']}"
        found = self._get(self._core.list_namespaced_pod, self.namespace, label_selector=selector) or {"items": []}
        return sorted(found["items"], key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def pod(self, name: str) -> Object | None:
        """Return one Pod, None where there is none."""
        return self._get(self._core.read_namespaced_pod, name, self.namespace)

    def warnings(self, involved: Object) -> list[str]:
        """Return what the cluster warns of about an object, the latest last: "FailedMount: …"."""
        selector = f"involvedObject.uid={involved['metadata']['uid']},type=Warning"
        found = self._get(self._core.list_namespaced_event, self.namespace, field_selector=selector) or {"items": []}
        events = sorted(found["items"], key=lambda one: one.get("lastTimestamp") or one.get("eventTime") or "")
        return [f"{one['reason']}: {one.get('message', '')}" for one in events if _is_from_cluster(one)]

    def log_lines(self, pod: str, since_seconds: int | None = None) -> Iterator[tuple[str, str]]:
        """Yield (time, line) of the job's container as they come, until it ends or the connection does.

        Args:
            pod: the Pod's name.
            since_seconds: how far to go back; None: to the beginning.
        """
        from kubernetes.watch import Watch

        since = {} if since_seconds is None else {"since_seconds": since_seconds}
        method = self._core.read_namespaced_pod_log
        for line in Watch().stream(method, pod, self.namespace, container=CONTAINER, timestamps=True, **since):
            when, _, text = line.partition(" ")
            yield when, text

    def _get(self, method: Callable[..., Any], *args: str, **kwargs: str) -> Object | None:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        remedy = "look at kubectl cluster-info"
        try:
            found = method(*args, _request_timeout=_TIMEOUT, **kwargs)
        except HTTPError as error:
            raise UnavailableError(f"the API server does not answer: {error}", remedy=remedy) from error
        except ApiException as error:
            if error.status == 404:  # not found
                return None
            if error.status in (401, 403):
                raise AccessError(
                    f"the API server refuses: {error.status} {error.reason}: {_said(error)}",
                    remedy="watch needs get on jobs, list on pods and events, get on pods/log in the namespace",
                ) from error
            if error.status in (429, 500, 502, 503, 504):
                raise UnavailableError(
                    f"the API server answers {error.status} {error.reason}", remedy=remedy
                ) from error
            raise
        return dict(self._api.sanitize_for_serialization(found))


def _is_from_cluster(event: Object) -> bool:
    """Return whether somebody else than the job itself wrote an Event: its own are in its log as well."""
    return str((event.get("source") or {}).get("component")) != CONTAINER


def _said(error: Any) -> str:
    import json

    try:
        return str(json.loads(error.body)["message"])
    except (KeyError, TypeError, ValueError):
        return ""
