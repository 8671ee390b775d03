"""Reports progress and metrics to Kubeflow Trainer, which shows them in ``kubectl get trainjob``.

In a TrainJob of a Kubeflow Trainer with the feature gate TrainJobStatus, each container has three variables: the URL of
its status endpoint, a file with the certificate of its authority, and one with a token that is renewed every hour. What
is posted is status.json in the endpoint's form, and replaces what was posted before:
https://github.com/kubeflow/trainer/tree/master/docs/proposals/2779-trainjob-progress
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from job.config import environment
from job.observability import log
from job.observability.status import StatusFile

if TYPE_CHECKING:
    from job.observability.progress import Listener

PREFIXES: Final = ("KUBEFLOW_TRAINER_SERVER", "KUBEFLOW_TRAINER_STATUS")
"""Of the variables _URL, _CA_CERT and _TOKEN: as released, and as in the proposal's first versions."""

INTERVAL_SECONDS: Final = 10.0
"""Between two posts: each is a write to the cluster's API server."""

_TIMEOUT = 5.0  # seconds, for each operation on the connection
_METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")


def trainer_listener(*, interval: float = INTERVAL_SECONDS, patience: float = 2.0) -> Listener | None:
    """Return the listener that reports to Kubeflow Trainer; None outside of a TrainJob.

    It posts from a thread of its own. The first failure is logged, and later states are still posted.

    Args:
        interval: minimum seconds between two posts.
        patience: seconds that the end of the run waits for the last one.
    """
    for prefix in PREFIXES:
        if url := environment.get(f"{prefix}_URL"):
            break
    else:
        return None
    token_file = environment.get(f"{prefix}_TOKEN")
    if urlsplit(url).scheme != "https" or not token_file:
        reason = f"expected {prefix}_URL to begin with https://, and {prefix}_TOKEN to name a file with a token"
        log.get().warning("kubeflow.not_reported", url=url, reason=reason)
        return None
    endpoint = TrainerStatus(url, token_file=token_file, ca_file=environment.get(f"{prefix}_CA_CERT"))
    return StatusFile(endpoint.write, run_id="", run_uri=url, interval=interval, patience=patience)


class TrainerStatus:
    """The status of this process's TrainJob.

    Args:
        url: of the endpoint; https.
        token_file: has the bearer token. It is read for each post, since the kubelet renews it.
        ca_file: has the certificates of the authorities that are trusted, read for each post, too; None: the system's.
    """

    def __init__(self, url: str, *, token_file: str, ca_file: str | None) -> None:
        self._url = urlsplit(url)
        self._token_file = token_file
        self._ca_file = ca_file
        self._percentage: int | None = None
        self._epochs: int | None = None

    def write(self, status: bytes) -> None:
        """Post a status.json; nothing before the first stage, when nothing is known.

        Raises:
            OSError: the endpoint is unreachable, is not trusted or refuses; or a file cannot be read.
            http.client.HTTPException: it does not answer as a server does.
        """
        document = json.loads(status)
        # Between the stages and after them status.json names no stage.
        self._epochs = document["epochs_total"] = document["epochs_total"] or self._epochs
        self._percentage = percentage(document, self._percentage)
        if self._percentage is not None:
            self._post(trainer_status(document, self._percentage))

    def _post(self, body: dict[str, Any]) -> None:
        import http.client  # only in a TrainJob
        import ssl

        token = Path(self._token_file).read_text(encoding="ascii").strip()
        # note: no proxy, and no redirect that the token would follow: the endpoint is a Service of the cluster
        connection = http.client.HTTPSConnection(
            self._url.hostname or "",
            self._url.port,
            timeout=_TIMEOUT,
            context=ssl.create_default_context(cafile=self._ca_file),
        )
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            connection.request("POST", self._url.path, json.dumps(body).encode(), headers)
            response = connection.getresponse()
            answer = response.read(1024).decode(errors="replace")
        finally:
            connection.close()
        if response.status != 200:
            raise OSError(f"the server answers {response.status} {response.reason}: {answer}")


def percentage(document: dict[str, Any], previous: int | None) -> int | None:
    """Return how much of the run is done: epochs of both stages, 99 until it is published; None if unknown.

    Args:
        document: a status.json.
        previous: the last value, below which it does not fall.
    """
    if document["state"] == "succeeded":
        return 100
    if not document["epochs_total"]:
        return previous
    # Of the phases within an epoch only that of the training steps has a step.
    in_epoch = document["done"] / document["total"] if document["step"] is not None and document["total"] else 0.0
    finished = (document["metrics"] or {}).get("epoch_total") or 0
    epochs = max((document["epoch_total"] or 1) - 1 + min(in_epoch, 1.0), finished)
    return max(previous or 0, min(99, int(100 * epochs / document["epochs_total"])))


def trainer_status(document: dict[str, Any], percent: int) -> dict[str, Any]:
    """Return the request for a status.json.

    Args:
        document: the status.json.
        percent: how much of the run is done.
    """
    eta = 0 if document["state"] == "succeeded" else document["run_eta_seconds"]
    metrics = {name: (document["metrics"] or {}).get(name) for name in _METRICS}
    metrics |= {"currentEpoch": document["epoch_total"], "totalEpochs": document["epochs_total"]}
    status = {
        "progressPercentage": percent,
        "metrics": [{"name": name, "value": f"{value:.6g}"} for name, value in metrics.items() if value is not None],
        "lastUpdatedTime": document["updated_at"],
    }
    return {"trainerStatus": status | ({} if eta is None else {"estimatedRemainingSeconds": max(0, round(eta))})}
