"""What made a model, besides its settings and data: versions, image and Job."""

from __future__ import annotations

import contextlib
import platform
from importlib import metadata
from typing import TYPE_CHECKING

from job import __version__
from job.config import environment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from job.config.settings import RunSettings
    from job.runs.documents import Document

_PACKAGES = {
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "keras": ("keras",),
    "numpy": ("numpy",),
}
"""Package -> its distributions. Their versions determine the last bits of a model, and who can load it."""


def document(settings: RunSettings) -> Document:
    """Return the provenance of a run, as manifest.json has it; what is unknown is null."""
    return {
        "version": __version__,
        "revision": environment.get("SOURCE_REVISION") or None,
        "image": settings.image or None,
        "job": {
            "uid": settings.job_uid or None,
            "name": settings.job_name or None,
            "namespace": settings.namespace or None,
            "node": settings.node or None,
        },
        "python": platform.python_version(),
        "packages": {name: _version(distributions) for name, distributions in _PACKAGES.items()},
    }


def _version(distributions: Iterable[str]) -> str | None:
    """Return the version of the first of these distributions that is installed."""
    for name in distributions:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None
