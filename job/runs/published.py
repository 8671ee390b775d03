"""Opens a published run for reading: the RUN of ``finetune report RUN`` and of the other commands that take one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from job import uri
from job.errors import DataError
from job.runs import documents

if TYPE_CHECKING:
    from job.config.settings import Settings
    from job.storage import OpenStore, Store

LATEST: Final = "latest"
"""Last part of ``OUTPUT_URI/latest``, which names the run that ``OUTPUT_URI/latest.json`` points to."""


def open_published(location: str, open_store: OpenStore) -> Store:
    """Return the store of a published run, whose names are those of manifest.json.

    The run of ``OUTPUT_URI/latest`` is looked up once: a publication in between changes nothing.

    Args:
        location: the run's URI or folder, or ``OUTPUT_URI/latest``.
        open_store: opens a store.

    Raises:
        errors.SettingsError: it is neither a URI nor a path.
        errors.DataError: there is no published run.
        errors.AccessError: the store denies access.
    """
    store = open_store(location)
    if store.stat("_SUCCESS") is not None:
        return store
    parent, _, last = store.uri.rpartition("/")
    if last == LATEST and parent and uri.parse(location).path:
        return _open_latest(parent, open_store)
    raise DataError(f"{store.uri} is not a published run: it has no _SUCCESS", remedy=_remedy(store))


def open_warm_start(settings: Settings, open_store: OpenStore) -> Store:
    """Return the store of the published run that `model.weights` names.

    Raises:
        errors.DataError: there is no such run.
        errors.AccessError: the store denies access.
    """
    weights = settings.model.weights
    return open_published(f"{settings.output.uri}/{LATEST}" if weights == LATEST else weights, open_store)


def _open_latest(output_uri: str, open_store: OpenStore) -> Store:
    output = open_store(output_uri)
    # note: not run_uri, which is where the output was for the run; in a container that is another path
    store = open_store(f"{output.uri}/runs/{latest_run_id(output)}")
    if store.stat("_SUCCESS") is None:
        raise DataError(
            f"latest.json names {store.uri}, which is not a published run: it was deleted", remedy=_other_run(output)
        )
    return store


def latest_run_id(output: Store) -> str:
    """Return the ID of the run that ``latest.json`` of an output names.

    Raises:
        errors.DataError: there is no ``latest.json``, it is unreadable, or the ID could lead out of the output.
    """
    remedy = _other_run(output)
    found = documents.read(output, "latest.json", documents.Latest, remedy=remedy)
    if found is None:
        raise DataError(f"{output.uri} has no latest.json: no run has passed its quality gate", remedy=remedy)
    run_id = found[0].run_id
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", run_id):  # it must not escape from the output
        raise DataError(f"{output.uri_of('latest.json')}: {run_id!r} is not the ID of a run", remedy=remedy)
    return run_id


def _other_run(output: Store) -> str:
    return f"name a run instead: {output.uri}/runs/ID"


def _remedy(store: Store) -> str:
    """Return what to do about a location that is no published run."""
    if store.stat("latest.json") is not None:
        return f"that is an output: give one of its runs, {store.uri}/runs/ID or {store.uri}/{LATEST}"
    if store.stat("status.json") is not None:
        return f"the run is unfinished: finetune watch {store.uri} follows it"
    return f"give the URI or folder of a run, OUTPUT_URI/runs/ID, or OUTPUT_URI/{LATEST}"
