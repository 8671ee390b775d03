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
from typing import TYPE_CHECKING, Literal

from job import errors, storage
from job.observability import log
from job.runs import documents
from job.runs.checkpoints import Checkpoints, read_index
from job.runs.identity import default_run_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from job.config.load import Loaded
    from job.config.settings import Settings
    from job.runs.documents import Document
    from job.runs.identity import Identity
    from job.runs.job_record import JobRecord
    from job.runtime.timing import Timing
    from job.storage import Store

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

    def read(self, name: str) -> bytes | None:
        """Return the content of a file of the run; None if there is none."""
        found = self.output.read(f"{self.prefix}/{name}")
        return found[0] if found else None

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
                    remedy="check that the volume has free space and works; the next start resumes here",
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

    def is_published(self) -> bool:
        """Return whether the run is published: readers rely on nothing else."""
        return self.output.stat(f"{self.prefix}/_SUCCESS") is not None

    def has_begun(self) -> bool:
        """Return whether a start has saved the run's data: later starts keep to them."""
        return self.is_published() or self.index().has_begun

    def index(self) -> documents.Index:
        """Return the index of the run's checkpoints; an empty one if there is none."""
        return read_index(self.output, f"{self.prefix}/checkpoints")[0]

    def record_identity(self, loaded: Loaded, identity: Identity, origin: Origin) -> None:
        """Write config.json. If an earlier start has written it, check that its identity is the same.

        A Job's own run that has not begun takes a new identity: nothing depends on the recorded one yet.

        Args:
            loaded: the settings and their origins.
            identity: of the settings and the data.
            origin: what the run's id was derived from, which determines the error for a difference.

        Raises:
            errors.SettingsError: a run with this id exists, with different data or settings; or the settings have
                changed since the Job began.
            errors.DataError: the input has changed since the Job began, or config.json is unreadable.
        """
        document = {"run_id": self.id, "identity": identity.document(), **loaded.document()}
        generation = 0
        while True:
            try:
                self.output.write(self._config_name, documents.encode(document), if_generation_match=generation)
            except storage.PreconditionFailed:
                recorded, generation = self._read_config()
                if origin == "job" and identity.differences(recorded) and not self.has_begun():
                    continue
                self._check_identity(identity, origin, recorded)
            return

    def check_identity(self, settings: Settings, identity: Identity) -> None:
        """Check the identity as `record_identity` does for a start that no Job has begun, and write nothing.

        Raises:
            errors.SettingsError, errors.DataError: see `record_identity`.
        """
        recorded, generation = self._read_config()
        if generation:
            self._check_identity(identity, _origin(settings), recorded)

    def checkpoints(
        self, settings: Settings, identity: Identity, timing: Timing, kind: type[Checkpoints] = Checkpoints
    ) -> Checkpoints:
        """Return the run's checkpoints, a context manager that holds the claim.

        Args:
            settings: of this start.
            identity: of these settings, and of the data if this start has listed them.
            timing: of this start.
            kind: the class; another one for a worker that does not claim the run.

        Raises:
            errors.SettingsError: the settings have changed since the Job began.
            errors.DataError: the data have changed since the Job began, or config.json is unreadable.
        """
        recorded, _ = self._read_config()
        self._check_identity(identity, "job", recorded)
        start = len(self.prefix) + 1
        self._generations = {name[start:]: n for name, n in self.output.generations(self.prefix).items()}
        self.claimed = kind(
            self.output,
            f"{self.prefix}/checkpoints",
            identity=dataclasses.replace(identity, data=recorded["data"]).hashes(),
            owner=settings.run.job_uid,
            interval=settings.checkpoint.interval,
            takeover=settings.checkpoint.takeover,
            timing=timing,
        )
        return self.claimed

    @property
    def _config_name(self) -> str:
        return f"{self.prefix}/config.json"

    def _read_config(self) -> tuple[Document, int]:
        """Return the recorded identity and the generation of config.json."""
        found = documents.read(
            self.output,
            self._config_name,
            documents.Config,
            remedy=f"restore it from a copy, or delete everything below {self.uri} to start that run again",
        )
        return (found[0].identity.document(), found[1]) if found else ({}, 0)

    def _check_identity(self, identity: Identity, origin: Origin, recorded: Document) -> None:
        """Raise the errors of `record_identity` if an identity differs from the recorded one."""
        if not (differences := "; ".join(identity.differences(recorded))):
            return
        if origin == "job":
            since, remedy = f"since this Job began its run {self.uri}", "start a new Job: it will be a new run"
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


def run_of(output: Store, settings: Settings, identity: Identity) -> Run:
    """Return the run of these settings and data, which need not exist yet."""
    return Run(output, settings.run.id or default_run_id(identity, settings.input.uri))


def open_run(output: Store, loaded: Loaded, identity: Identity, job: JobRecord) -> Run:
    """Return the run of these settings and data, and record its identity in the output.

    The run of a Job is recorded, so that later Pods of the Job continue it without listing the data again. That is done
    only after the run's settings and data have been checked.

    Raises:
        errors.SettingsError: an explicit run.id belongs to another run.
        errors.DataError: config.json is unreadable.
        errors.AccessError: the output cannot be written.
        errors.StoppedError: another Pod of the Job has just begun another run.
    """
    run = run_of(output, loaded.settings, identity)
    is_pinned = job.run_id() == run.id
    run.record_identity(loaded, identity, "job" if is_pinned else _origin(loaded.settings))
    job.pin(run.id, has_begun=lambda run_id: Run(output, run_id).has_begun())
    return run


def pinned_run(output: Store, settings: Settings, job: JobRecord) -> Run | None:
    """Return the run that an earlier Pod of this Job began; None if there is none, or it was deleted.

    Raises:
        errors.SettingsError: run.id names another run.
        errors.DataError: the record of the Job is unreadable.
    """
    run_id = job.run_id()
    if run_id is None:
        return None
    if settings.run.id not in ("", run_id):
        raise errors.SettingsError(
            f"run.id is {settings.run.id!r}, and this Job works on {run_id!r} since its first Pod",
            remedy="start a new Job for another run",
        )
    run = Run(output, run_id)
    return run if run.has_begun() else None


def _origin(settings: Settings) -> Origin:
    return "run.id" if settings.run.id else "data and settings"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
