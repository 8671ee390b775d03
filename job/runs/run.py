"""A run's prefix in the output, and the conditional writes to it.

Only the claim holder may write to a run. A superseded process may not know yet that it lost the claim (it may hang in a
request), so every write is conditional on the generation that the process last saw. Generations are listed before the
claim is taken: anything that a successor writes has a later one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from job import errors, storage
from job.observability import log
from job.runs.checkpoints import Checkpoints
from job.runs.identity import default_run_id, identify

if TYPE_CHECKING:
    from collections.abc import Iterable

    from job.config.load import Loaded
    from job.config.settings import Settings
    from job.runs.identity import Identity
    from job.storage import Store


Document = dict[str, Any]
Origin = Literal["data and settings", "run.id", "job"]
"""What a run's id was derived from."""


class Run:
    """A run, stored under its own prefix in the output.

    Attributes:
        id: the last part of the prefix.
        output: the store.
        prefix: of all its objects.
        uri: of the prefix.
        files: name -> size and checksums of each file written by this process.
        claimed: its checkpoints, from `checkpoints` on.
    """

    def __init__(self, output: Store, run_id: str) -> None:
        self.id = run_id
        self.output = output
        self.prefix = f"runs/{run_id}"
        self.uri = output.uri_of(self.prefix)
        self.files: dict[str, Document] = {}
        self.claimed: Checkpoints | None = None
        self._generations: dict[str, int] = {}

    def write(self, name: str, data: bytes | Path) -> None:
        """Write one file, and record its size and checksums for manifest.json.

        Raises:
            errors.StoppedError: another process has taken the run over.
        """
        info = self.overwrite(name, data)
        sha256 = hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else _sha256(data)
        self.record(name, info, sha256)

    def write_lines(self, name: str, lines: Iterable[str]) -> None:
        """Write a text file line by line, without holding it in memory.

        Raises:
            errors.StoppedError: another process has taken the run over.
            errors.UnavailableError: the temporary folder is full.
        """
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(tempfile.NamedTemporaryFile("w", encoding="utf-8", newline=""))
                file.writelines(lines)
                file.flush()
            except OSError as error:
                raise errors.UnavailableError(
                    f"{name} cannot be written to {tempfile.gettempdir()}: {error.strerror}",
                    remedy="see whether that volume has room and is sound; the next start goes on here",
                ) from error
            self.write(name, Path(file.name))

    def write_documents(self, name: str, documents: Iterable[Document]) -> None:
        """Write documents as JSON Lines."""
        plain = (log.plain(document) for document in documents)
        self.write_lines(name, (json.dumps(item, ensure_ascii=False, allow_nan=False) + "\n" for item in plain))

    def write_folder(self, name: str, folder: Path) -> None:
        """Write every file below a local folder."""
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.write(f"{name}/{path.relative_to(folder).as_posix()}", path)

    def write_status(self, data: bytes) -> None:
        """Write status.json, which changes during the run and therefore is not in manifest.json.

        Does nothing if another process has taken the run over: the file belongs to that process.
        """
        with contextlib.suppress(errors.StoppedError):
            self.overwrite("status.json", data)

    def read(self, name: str) -> Document | None:
        """Return one of the run's JSON files, or None if it does not exist."""
        found = self.output.read(f"{self.prefix}/{name}")
        return json.loads(found[0]) if found else None

    def record_identity(self, loaded: Loaded, identity: Identity, origin: Origin) -> None:
        """Write config.json. If an earlier start has written it, check that its identity is the same.

        Args:
            loaded: the settings and their origins.
            identity: of the settings and the data.
            origin: what the run's id was derived from, which determines the error for a difference.

        Raises:
            errors.SettingsError: a run with this id exists, with different data or settings; or the settings have
                changed since the Job began.
            errors.DataError: the input has changed since the Job began.
        """
        document = {"run_id": self.id, "identity": identity.document(), **loaded.document()}
        try:
            self.output.write(f"{self.prefix}/config.json", encode(document), if_generation_match=0)
        except storage.PreconditionFailed:
            self._check_identity(identity, origin)

    def checkpoints(self, settings: Settings) -> Checkpoints:
        """Return the run's checkpoints, a context manager that holds the claim.

        Raises:
            errors.SettingsError: the settings have changed since the Job began.
        """
        identity = identify(settings)
        recorded = self._check_identity(identity, "job")
        start = len(self.prefix) + 1
        self._generations = {info.name[start:]: info.generation for info in self.output.list(self.prefix)}
        self.claimed = Checkpoints(
            self.output,
            f"{self.prefix}/checkpoints",
            identity=dataclasses.replace(identity, data=recorded["data"]).hashes(),
            owner=settings.run.job_uid,
            interval=settings.checkpoint.interval,
            takeover=settings.checkpoint.takeover,
        )
        return self.claimed

    def _check_identity(self, identity: Identity, origin: Origin) -> Document:
        """Return the identity in config.json; raise the errors of `record_identity` if `identity` differs from it."""
        recorded: Document = (self.read("config.json") or {}).get("identity", {})
        if not (differences := "; ".join(identity.differences(recorded))):
            return recorded
        if origin == "job":
            since, remedy = f"since this Job began its run {self.uri}", "start a new Job: it will be a run of its own"
            if identity.data in (None, recorded.get("data")):
                raise errors.SettingsError(f"the settings have changed {since}: {differences}", remedy=remedy)
            raise errors.DataError(f"the input or the settings have changed {since}: {differences}", remedy=remedy)
        raise errors.SettingsError(
            f"run.id {self.id!r} is taken by a run with other settings or data ({self.uri}): {differences}",
            remedy="choose another run.id, or leave it empty; or use the settings and data of that run",
        )

    def overwrite(self, name: str, data: bytes | Path) -> storage.ObjectInfo:
        """Overwrite the generation of the file that was last seen; another one only while the claim is held."""
        assert self.claimed is not None, "writing requires the claim"
        path = f"{self.prefix}/{name}"
        while True:
            try:
                written = self.output.write(path, data, if_generation_match=self._generations.get(name, 0))
            except storage.PreconditionFailed:
                found = self.output.stat(path)
                self.claimed.flush()  # note: after `stat`, which might otherwise see a successor's file
                self._generations[name] = found.generation if found else 0
            else:
                self._generations[name] = written.generation
                return written

    def record(self, name: str, info: storage.ObjectInfo, sha256: str) -> None:
        """Record a file for manifest.json."""
        self.files[name] = {"size": info.size, "sha256": sha256, "crc32c": f"{info.crc32c:08x}"}


def open_run(output: Store, loaded: Loaded, identity: Identity) -> Run:
    """Return the run of these settings and data, and record its identity in the output.

    A Job's first Pod pins the run under ``jobs/`` so that later Pods of the Job continue it without listing the data
    again. It does so only after it has checked the run's settings and data.

    Raises:
        errors.SettingsError: an explicit run.id belongs to another run.
        errors.DataError: the input has changed since this Job began.
        errors.AccessError: the output cannot be written.
    """
    settings = loaded.settings
    run_id = settings.run.id or default_run_id(identity, settings.input.uri)
    run = Run(output, run_id)
    run.record_identity(loaded, identity, "run.id" if settings.run.id else "data and settings")
    if not settings.run.job_uid:
        return run
    try:
        output.write(_pin_name(settings), encode({"run_id": run_id}), if_generation_match=0)
    except storage.PreconditionFailed:  # another Pod of the Job was faster
        run = _read_pin(output, settings) or run
        run.record_identity(loaded, identity, "job")
    return run


def pinned_run(output: Store, settings: Settings) -> Run | None:
    """Return the run that an earlier Pod of this Job pinned; None if there is none, or it was deleted.

    Raises:
        errors.SettingsError: run.id names another run.
    """
    run = _read_pin(output, settings) if settings.run.job_uid else None
    return run if run and run.read("config.json") else None


def _read_pin(output: Store, settings: Settings) -> Run | None:
    found = output.read(_pin_name(settings))
    if found is None:
        return None
    run_id = str(json.loads(found[0])["run_id"])
    if settings.run.id not in ("", run_id):
        raise errors.SettingsError(
            f"run.id is {settings.run.id!r}, and this Job works on {run_id!r} since its first Pod",
            remedy="start a new Job for another run",
        )
    return Run(output, run_id)


def _pin_name(settings: Settings) -> str:
    return f"jobs/{settings.run.job_uid}.json"


def encode(document: Document) -> bytes:
    """Return a document as strict JSON: NaN and infinities become null."""
    return (json.dumps(log.plain(document), ensure_ascii=False, allow_nan=False, indent=2) + "\n").encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
