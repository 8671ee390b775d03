"""How the starts of a Job ended, from its record in the output: it outlives the Pods and their node.

The output is found in the Job's own Pod template, and read with the credentials of the person who watches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from job.errors import DataError, FinetuneError
from job.watch.pods import job_container

if TYPE_CHECKING:
    from job.observability.kube_events import Object

SETTINGS_ANNOTATION = "finetune/config.yaml"
"""Of the Pod template: the chart's settings file."""

_RETRY_SECONDS, _CREDENTIAL_SECONDS = 15.0, 5.0
"""How long the store is tried: a person waits for the answer."""


class RecordedEnd(NamedTuple):
    """How one start of a Job ended.

    Attributes:
        pod: the name of its Pod; empty in a record of an older version.
        node: that it ran on.
        exit_code: None if the process was killed before it could record one.
        facts: reason, message and remedy, where it failed, and run_uri, where the Job had a run.
    """

    pod: str
    node: str
    exit_code: int | None
    facts: dict[str, Any]


def read_ends(job: Object) -> list[RecordedEnd]:
    """Return the end of each recorded start of a Job, oldest first; at least one.

    Args:
        job: as the API server returned it.

    Raises:
        FinetuneError: there is no record, or it cannot be read; the message names it, and the remedy says what to do.
    """
    from job import storage  # with runs, half a second of imports, which other commands avoid
    from job.runs import documents

    name = f"jobs/{job['metadata']['uid']}.json"
    uri = setting(job, "output", "uri")
    if not uri:
        raise DataError(
            f"its Pod template does not name output.uri, where {name} has how it ended",
            remedy=f"read {name} in the output of the run",
        )
    try:
        retry = storage.RetryPolicy(seconds=_RETRY_SECONDS, credential_seconds=_CREDENTIAL_SECONDS)
        store = storage.open_store(uri, retry=retry, user_project=setting(job, "storage", "user_project") or None)
        found = documents.read(store, name, documents.Job, remedy="look at kubectl describe job")
    except FinetuneError as error:
        message = f"{uri.rstrip('/')}/{name}, which has how it ended, cannot be read: {error.message}"
        raise type(error)(message, remedy=error.remedy) from error
    if found is None or not found[0].attempts:
        where = "" if uri.startswith("gs://") else " on this machine (the output is a folder of the Pod)"
        raise DataError(
            f"there is no {store.uri_of(name)}{where}",
            remedy="the Job ended before it could record that, as with wrong settings, or never started: look at "
            "kubectl describe job, and at the cluster's log storage",
        )
    record = found[0]
    run = {"run_uri": f"{store.uri}/runs/{record.run_id}"} if record.run_id else {}
    return [
        RecordedEnd(
            attempt.get("pod", ""),
            attempt.get("node", ""),
            attempt.get("exit_code"),
            {key: attempt[key] for key in ("reason", "message", "remedy") if attempt.get(key)} | run,
        )
        for attempt in record.attempts
    ]


def find_end(ends: list[RecordedEnd], pod: str, *, others: set[str]) -> RecordedEnd:
    """Return how the Pod ended that is gone.

    Args:
        ends: those of the record.
        pod: its name; empty: unknown, then it is the Pod of the last start.
        others: names of the Pods that are not gone.
    """
    nothing = RecordedEnd(pod, "", None, {})  # it ended before it recorded a start
    if pod:
        return next((end for end in reversed(ends) if end.pod == pod), nothing)
    return nothing if ends[-1].pod in others else ends[-1]


def setting(job: Object, group: str, name: str) -> str | None:
    """Return a setting of a Job's container: from its flags, its environment or its settings file, in this order.

    Args:
        job: as the API server returned it.
        group: of the setting.
        name: of the setting, without its group.
    """
    import yaml

    template = job["spec"].get("template") or {}
    spec = template.get("spec") or {}
    chosen = job_container(spec)
    container: dict[str, Any] = next((item for item in spec.get("containers") or () if item["name"] == chosen), {})
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    flag = f"--{group}.{name}"
    for position, word in reversed([*enumerate(words)]):
        if word.startswith(f"{flag}="):
            return str(word.partition("=")[2])
        if word == flag and words[position + 1 :]:
            return str(words[position + 1])
    variable = f"FINETUNE_{group}__{name}".upper()
    for item in container.get("env") or ():
        if item["name"] == variable and item.get("value"):
            return str(item["value"])
    text = ((template.get("metadata") or {}).get("annotations") or {}).get(SETTINGS_ANNOTATION)
    try:
        value = yaml.safe_load(text or "")[group][name]
    except (yaml.YAMLError, KeyError, TypeError):
        return None
    return None if value is None else str(value)
