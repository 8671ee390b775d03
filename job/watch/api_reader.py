"""Read access to a cluster for ``finetune watch``: a Job, its Pods, their Events and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from job.config import certificates
from job.errors import UsageError
from job.observability import kube_api
from job.observability.kube_events import CONTAINER, Object
from job.watch.pods import job_container

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NEEDS = "watch needs get on jobs, list on pods and events, get on pods/log in the namespace"
_REMEDY = "look at kubectl cluster-info"


class Cluster:
    """Reads a Job, its Pods, their Events and logs.

    Args:
        namespace: of the Job; None: the context's.
        context: of the kubeconfig; None: the current one.

    Raises:
        SettingsError: the kubeconfig or context does not exist, or the bundle of certificates cannot be read.
    """

    def __init__(self, namespace: str | None = None, context: str | None = None) -> None:
        from kubernetes import client, config

        certificates.use_one_bundle()  # for a kubeconfig without certificate-authority
        try:
            contexts, current = config.list_kube_config_contexts()
            selected = next((item for item in contexts if item["name"] == context), current)
            configuration = client.Configuration()
            config.load_kube_config(context=context, client_configuration=configuration)
        except (config.ConfigException, OSError) as error:
            raise UsageError(
                f"there is no usable kubeconfig: {error}",
                remedy="set KUBECONFIG, or name a context of it with --context",
            ) from error
        configuration.retries = False  # watch polls every second
        self.namespace = namespace or selected["context"].get("namespace") or "default"
        self._api = client.ApiClient(configuration)
        self._core = client.CoreV1Api(self._api)
        self._batch = client.BatchV1Api(self._api)

    def job(self, name: str) -> Object | None:
        """Return the Job, or None if it does not exist."""
        return self._get(self._batch.read_namespaced_job, name, self.namespace)

    def pods(self, job: Object) -> list[Object]:
        """Return the Job's Pods, oldest first, without the containers that were added to its template."""
        selector = f"batch.kubernetes.io/controller-uid={job['metadata']['uid']}"
        found = self._get(self._core.list_namespaced_pod, self.namespace, label_selector=selector) or {"items": []}
        names = {container["name"] for container in job["spec"]["template"]["spec"]["containers"]}
        for pod in found["items"]:
            pod["spec"]["containers"] = [one for one in pod["spec"]["containers"] if one["name"] in names]
        return sorted(found["items"], key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def pod(self, name: str) -> Object | None:
        """Return a Pod, or None if it does not exist."""
        return self._get(self._core.read_namespaced_pod, name, self.namespace)

    def warnings(self, involved: Object) -> list[str]:
        """Return the cluster's warnings about an object, latest last, such as "FailedMount: …"."""
        selector = f"involvedObject.uid={involved['metadata']['uid']},type=Warning"
        found = self._get(self._core.list_namespaced_event, self.namespace, field_selector=selector) or {"items": []}
        events = sorted(found["items"], key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return [f"{event['reason']}: {event.get('message', '')}" for event in events if _is_from_cluster(event)]

    def log_lines(self, pod: Object, since_seconds: int | None = None) -> Iterator[tuple[str, str]]:
        """Stream (time, line) of the job's container until the container or the connection ends.

        Args:
            pod: the Pod.
            since_seconds: the age of the oldest lines to return; None: all lines.
        """
        from kubernetes.watch import Watch

        name, options = pod["metadata"]["name"], {"container": job_container(pod["spec"]), "timestamps": True}
        if since_seconds is not None:
            options["since_seconds"] = since_seconds
        for line in Watch().stream(self._core.read_namespaced_pod_log, name, self.namespace, **options):
            timestamp, _, text = line.partition(" ")
            yield timestamp, text

    def _get(self, method: Callable[..., Any], *args: str, **kwargs: str) -> Object | None:
        found = kube_api.request(method, *args, needs=_NEEDS, remedy=_REMEDY, **kwargs)
        return None if found is None else dict(self._api.sanitize_for_serialization(found))


def _is_from_cluster(event: Object) -> bool:
    """Return whether the cluster, not the job, wrote an Event: the job's own Events are in its log as well."""
    return str((event.get("source") or {}).get("component")) != CONTAINER
