"""The control documents of an output: the JSON files that determine what a start does. Validated when read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from job import errors
from job.evaluation.gates import Gate
from job.observability import log

if TYPE_CHECKING:
    from job.storage import Store

Document: TypeAlias = dict[str, Any]


class _Document(BaseModel):
    """Has the fields that a start depends on, and keeps all others."""

    model_config = ConfigDict(extra="allow", frozen=True)

    def document(self) -> Document:
        """Return all fields as plain JSON."""
        return self.model_dump(mode="json")


class Process(_Document):
    """A process that claims a run."""

    host: str
    pid: int
    pid_namespace: int | None = None
    started: str | None = None


class Claim(_Document):
    """The claim of a process on a run; see job/runs/claim.py."""

    owner: str
    process: Process
    released: bool


class Reference(_Document):
    """Names an object with arrays."""

    name: str
    size: int
    crc32c: int


class _Saved(_Document):
    format: int
    saved_at: str
    identity: Document


class SavedData(_Saved, Reference):
    """The data of a run."""


class SavedState(_Saved):
    """A state of the training."""

    facts: Document
    state: Document
    objects: dict[str, Reference]


class Index(_Document):
    """checkpoints/index.json of a run; see job/runs/checkpoints.py."""

    claim: Claim | None = None
    data: SavedData | None = None
    checkpoints: list[SavedState] = []
    manifest_sha256: str | None = None
    starts: int = 0
    timing: dict[str, float] = {}
    pruning: bool = False

    @property
    def has_begun(self) -> bool:
        """Whether a start has saved the data of the run: later starts keep to them."""
        return bool(self.data or self.checkpoints or self.manifest_sha256)


class RecordedIdentity(_Document):
    """Of a run; see job/runs/identity.py."""

    recipe: int
    data: str
    settings: Document


class Config(_Document):
    """config.json of a run."""

    identity: RecordedIdentity


class Job(_Document):
    """``jobs/<uid>.json``; see job/runs/job_record.py."""

    run_id: str | None
    name: str = ""
    namespace: str = ""
    image: str = ""
    attempts: list[Document] = []


class PublishedFile(_Document):
    """A file of a published run."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    crc32c: str = Field(pattern=r"^[0-9a-f]{8}$")


class PublishedManifest(_Document):
    """manifest.json of a run."""

    run_id: str
    published_at: str
    gate: Gate
    files: dict[str, PublishedFile]


class Overview(_Document):
    """What ``finetune runs list`` shows of a published run; what is unknown is null. See job/runs/overview.py."""

    run_id: str
    published_at: str
    gate_passed: bool
    accuracy: float
    accuracy_interval: tuple[float, float] | None = None
    data_uri: str | None = None
    data_digest: str | None = None
    images: dict[str, int] = {}
    labels: int | None = None
    kept_stage: str | None = None
    kept_epoch: int | None = None
    attempts: int | None = None
    seconds: float | None = None
    gpu_seconds: float | None = None
    version: str | None = None


class Success(_Document):
    """``_SUCCESS`` of a run."""

    manifest_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    overview: Overview | None = None


class Latest(_Document):
    """latest.json of an output."""

    run_id: str
    published_at: str
    pinned: bool = False


_Model = TypeVar("_Model", bound=_Document)


class UnreadableError(ValueError):
    """A document is empty, not JSON, or lacks a field."""


def parse(data: bytes, model: type[_Model]) -> _Model:
    """Return a document.

    Raises:
        UnreadableError: it is not JSON, or does not match the model.
    """
    if not data.strip():
        raise UnreadableError("it is empty")
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise UnreadableError(": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))) from error


def read(output: Store, name: str, model: type[_Model], *, remedy: str) -> tuple[_Model, int] | None:
    """Return a document and its generation; None if it does not exist.

    Args:
        output: the store.
        name: of the document in it.
        model: the fields that the caller depends on.
        remedy: how the user can repair the output if the document is unreadable.

    Raises:
        errors.DataError: it is unreadable.
    """
    found = output.read(name)
    if found is None:
        return None
    try:
        return parse(found[0], model), found[1].generation
    except UnreadableError as error:
        raise errors.DataError(f"{output.uri_of(name)} is unreadable: {error}", remedy=remedy) from error


def encode(document: Document) -> bytes:
    """Return a document as strict JSON: NaN and infinities become null."""
    return (json.dumps(log.plain(document), ensure_ascii=False, allow_nan=False, indent=2) + "\n").encode()
