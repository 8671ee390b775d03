"""What made a model."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from job import __version__
from job.config.settings import RunSettings
from job.runs import provenance

if TYPE_CHECKING:
    import pytest


def test_in_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions, revision, image and Job are named."""
    monkeypatch.setenv("SOURCE_REVISION", "0123abc")
    job = {"uid": "u", "name": "flowers-1", "namespace": "ml", "node": "gpu-7"}
    document = provenance.document(
        RunSettings(job_uid="u", job_name="flowers-1", namespace="ml", node="gpu-7", image="finetune:1")
    )

    assert (__version__, "0123abc", "finetune:1", job) == tuple(
        document[key] for key in ("version", "revision", "image", "job")
    )
    assert metadata.version("keras") == document["packages"]["keras"]
    assert all(document["packages"].values())


def test_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is unknown is null."""
    monkeypatch.delenv("SOURCE_REVISION", raising=False)
    document = provenance.document(RunSettings())

    assert (None, None) == (document["revision"], document["image"])
    assert {None} == set(document["job"].values())
