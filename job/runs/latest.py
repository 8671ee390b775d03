"""``latest.json``, and the files of the run that it names.

They are read through the output's store, from the run that has the name below this output. Nothing that they contain
becomes a local path or a name in the store unchecked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tempfile
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from job import errors
from job.config.settings import NAME_PATTERN
from job.data.manifest import content_keys
from job.observability import log
from job.runs import documents

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from job.evaluation.gates import Gate
    from job.storage import Store

SPLIT, MANIFEST = "data/split.jsonl", "data/manifest.jsonl"

_MODEL = "model/saved_model/"
_MODEL_FILE = re.compile(r"saved_model\.pb|fingerprint\.pb|variables/variables\.(index|data-\d{5}-of-\d{5})")
"""The files of a SavedModel that this job publishes and that are needed to load it."""


class UnusableRunError(Exception):
    """The run that ``latest.json`` names is deleted, damaged or of another format; the text is the reason."""


def read_latest(output: Store) -> tuple[documents.Latest | None, int]:
    """Return ``latest.json`` and its generation: None and 0 if it does not exist, None if it is unreadable."""
    found = output.read("latest.json")
    if found is None:
        return None, 0
    try:
        return documents.parse(found[0], documents.Latest), found[1].generation
    except documents.UnreadableError as error:
        log.get().warning("latest.unreadable", uri=output.uri_of("latest.json"), error=str(error))
        return None, found[1].generation


def pointer(
    run_uri: str, manifest: documents.PublishedManifest, gate: Gate, *, by: str, why: str, pinned: bool
) -> bytes:
    """Return a ``latest.json``.

    Args:
        run_uri: of the run that it names.
        manifest: of that run.
        gate: of that run.
        by: who or what moves it; recorded with the time.
        why: the reason.
        pinned: no publication moves it afterwards.
    """
    document = {
        "run_id": manifest.run_id,
        "run_uri": run_uri,
        "published_at": manifest.published_at,
        "promoted": {"by": by, "at": log.timestamp(), "why": why},
        "pinned": pinned,
        "gate": gate.document(),
    }
    return documents.encode(document)


def training_content(split: Iterable[bytes], rows: Iterable[bytes]) -> NDArray[np.uint64]:
    """Return size and checksum, as one number, of each image that a run trained on: uint64 [n].

    Args:
        split: lines of ``data/split.jsonl``.
        rows: lines of ``data/manifest.jsonl``, of the same images.

    Raises:
        ValueError: they are of another format.
    """
    sizes, checksums = array("q"), array("I")
    try:
        for side, line in zip(split, rows, strict=True):
            if json.loads(side)["split"] == "train":
                row = json.loads(line)
                sizes.append(row["size"])
                checksums.append(row["crc32c"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{SPLIT} or {MANIFEST} is of another format: {error!r}") from error
    return content_keys(np.asarray(sizes), np.asarray(checksums))


class PublishedFiles:
    """The files of a published run, each verified against its manifest.json.

    Args:
        output: the store.
        run_id: as named by a document in it.

    Raises:
        UnusableRunError: it is no run's name, or names no published run, or manifest.json is unreadable.
    """

    def __init__(self, output: Store, run_id: str) -> None:
        if not run_id or not re.fullmatch(NAME_PATTERN, run_id):
            raise UnusableRunError(f"{run_id!r} is not the name of a run")
        self._output = output
        self._prefix = f"runs/{run_id}"
        if output.read(f"{self._prefix}/_SUCCESS") is None:
            raise UnusableRunError(f"the run {run_id} is deleted: it has no _SUCCESS")
        try:
            self._files = documents.parse(self._bytes("manifest.json"), documents.PublishedManifest).files
        except documents.UnreadableError as error:
            raise UnusableRunError(f"manifest.json of the run {run_id} is unreadable: {error}") from error

    def read(self, name: str) -> bytes:
        """Return a file.

        Raises:
            UnusableRunError: it is missing, or differs from manifest.json.
        """
        data, recorded = self._bytes(name), self._files.get(name)
        if recorded is None or hashlib.sha256(data).hexdigest() != recorded.sha256:
            raise UnusableRunError(f"{name} differs from its checksum in manifest.json")
        return data

    def labels(self) -> tuple[str, ...]:
        """Return the labels, in the order of the model's probabilities.

        Raises:
            UnusableRunError: see `read`.
        """
        return tuple(self.read("model/labels.txt").decode("utf-8", "replace").split("\n")[:-1])

    def training_content(self) -> NDArray[np.uint64]:
        """Return size and checksum, as one number, of each image that the run trained on: uint64 [n].

        Raises:
            UnusableRunError: see `read`; or the files are of another format.
        """
        try:
            return training_content(self.read(SPLIT).splitlines(), self.read(MANIFEST).splitlines())
        except ValueError as error:
            raise UnusableRunError(str(error)) from error

    @contextlib.contextmanager
    def downloaded_model(self, scratch: Path) -> Iterator[Path]:
        """Yield a local folder with ``saved_model/``, which is removed afterwards.

        Args:
            scratch: the folder in which it is created.

        Raises:
            UnusableRunError: see `read`; or a file is missing in manifest.json.
            errors.UnavailableError: the folder cannot be written.
        """
        names = [name.removeprefix(_MODEL) for name in self._files if name.startswith(_MODEL)]
        if "saved_model.pb" not in names:
            raise UnusableRunError(f"manifest.json does not list {_MODEL}saved_model.pb")
        with contextlib.ExitStack() as stack:
            try:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latest-", dir=scratch)))
                (folder / "saved_model/variables").mkdir(parents=True)
                for name in filter(_MODEL_FILE.fullmatch, names):
                    (folder / "saved_model" / name).write_bytes(self.read(_MODEL + name))
            except OSError as error:
                raise errors.UnavailableError(
                    f"the latest model cannot be written to {scratch}: {error.strerror}",
                    remedy="see whether the volume of cache.dir has room and is sound; the next start resumes before "
                    "the export",
                ) from error
            yield folder

    def _bytes(self, name: str) -> bytes:
        found = self._output.read(f"{self._prefix}/{name}")
        if found is None:
            raise UnusableRunError(f"{name} is missing in {self._output.uri_of(self._prefix)}")
        return found[0]
