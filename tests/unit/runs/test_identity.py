"""Runs are identified by content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from job.config.settings import ModelSettings, Settings
from job.runs.identity import identify

if TYPE_CHECKING:
    from pathlib import Path


def digest(weights: Path | str) -> str:
    """Return the digest of a run that starts from such weights."""
    return identify(Settings(model=ModelSettings(weights=str(weights)))).digest


def test_weights_are_known_by_their_content(tmp_path: Path) -> None:
    """A weights file with other bytes is another run, and the same bytes under another name are the same run."""
    for name, data in (("a.h5", b"1"), ("b.h5", b"2"), ("copy.h5", b"1")):
        (tmp_path / name).write_bytes(data)

    a, b, copy = (digest(tmp_path / name) for name in ("a.h5", "b.h5", "copy.h5"))

    assert a == copy
    assert a != b


def test_weights_that_are_no_file_are_known_by_their_name() -> None:
    """ImageNet weights and random ones are told apart, and no file is looked for."""
    assert digest("imagenet") != digest("none")
