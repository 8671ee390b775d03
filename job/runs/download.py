"""Copies files of a published run to the local disk, verified: a model that is loaded is the one that was published."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from job import errors
from job.runs import documents
from job.runs.checksums import difference, measure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from job.runs.documents import PublishedFile, PublishedManifest
    from job.storage import Store

LABELS, SAVED_MODEL, KERAS_MODEL = "model/labels.txt", "model/saved_model/", "model/model.keras"

_SAFE_NAME = re.compile(r"(?:(?!\.\.?(?:/|$))[A-Za-z0-9._-]+/)*(?!\.\.?$)[A-Za-z0-9._-]+")
"""Names that become local paths: of the characters that this program gives to the files of a model."""


def download_model(store: Store, folder: Path) -> None:
    """Copy the SavedModel of a published run and its labels into a local folder.

    Args:
        store: of the run.
        folder: gets ``model/labels.txt`` and ``model/saved_model/``.

    Raises:
        errors.DataError: a file is missing, or differs from what was published.
        errors.AccessError, errors.UnavailableError: the store or the disk fails.
    """
    files = read_manifest(store).files
    wanted = {name: file for name, file in files.items() if name == LABELS or name.startswith(SAVED_MODEL)}
    if LABELS not in wanted or f"{SAVED_MODEL}saved_model.pb" not in wanted:
        raise errors.DataError(f"{store.uri} has no SavedModel", remedy="give a run that finetune run has published")
    download(store, wanted, folder)


def download_files(store: Store, names: Sequence[str], folder: Path) -> None:
    """Copy files of a published run into a local folder, under their names.

    Raises:
        errors.DataError: a file is missing, or differs from what was published.
        errors.AccessError, errors.UnavailableError: the store or the disk fails.
    """
    files = read_manifest(store).files
    if missing := [name for name in names if name not in files]:
        raise _differs(store, f"manifest.json of {store.uri} has no {missing[0]}")
    download(store, {name: files[name] for name in names}, folder)


def manifest_sha256(store: Store) -> str:
    """Return the sha256 of a published run's manifest.json, in hexadecimal, as ``_SUCCESS`` has it.

    Raises:
        errors.DataError: ``_SUCCESS`` is missing or unreadable.
    """
    success = documents.read(store, "_SUCCESS", documents.Success, remedy=_remedy(store))
    if success is None:
        raise _differs(store, f"{store.uri} has no _SUCCESS")
    return success[0].manifest_sha256


def read_manifest(store: Store) -> PublishedManifest:
    """Return manifest.json of a published run, if it is the one that ``_SUCCESS`` names.

    Raises:
        errors.DataError: one of them is missing, unreadable, or not as published.
    """
    expected, stored = manifest_sha256(store), store.read("manifest.json")
    if stored is None:
        raise _differs(store, f"{store.uri} has no manifest.json")
    if hashlib.sha256(stored[0]).hexdigest() != expected:
        raise _differs(store, f"{store.uri_of('manifest.json')} is not the one that _SUCCESS names")
    try:
        return documents.parse(stored[0], documents.PublishedManifest)
    except documents.UnreadableError as error:
        raise _differs(store, f"{store.uri_of('manifest.json')} is unreadable: {error}") from error


def download(store: Store, files: Mapping[str, PublishedFile], folder: Path) -> None:
    """Copy published files into a local folder, verified.

    Args:
        store: of the run.
        files: name -> what manifest.json has of it. Names come from the store: only plain ones become paths.
        folder: gets the files, under their names.

    Raises:
        errors.DataError: a name is no plain path below the folder; a file is missing or differs from manifest.json.
        errors.UnavailableError: the disk is full, or other bytes than stored arrived in all tries.
    """
    for name, expected in sorted(files.items()):
        if not _SAFE_NAME.fullmatch(name):
            raise _differs(store, f"manifest.json has a file {name!r}, which is no path below the run")
        info = store.stat(name)
        if info is None:
            raise _differs(store, f"{store.uri_of(name)} is missing")
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                found = measure(store, info, file)
        except FileNotFoundError as error:
            raise _differs(store, f"{store.uri_of(name)} changed while it was read") from error
        except OSError as error:
            raise errors.UnavailableError(
                f"{name} cannot be written to {folder}: {error.strerror}",
                remedy="free some space there, or set TMPDIR to a larger folder",
            ) from error
        if problem := difference(expected, found):
            raise _differs(store, f"{store.uri_of(name)}: {problem}")


def _differs(store: Store, problem: str) -> errors.DataError:
    return errors.DataError(problem, remedy=_remedy(store))


def _remedy(store: Store) -> str:
    return f"finetune verify {store.uri} lists all that differs; restore it from a copy"
