"""Opening a store: the URIs that it accepts, and what that imports."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from job.errors import SettingsError
from job.storage import open_store

if TYPE_CHECKING:
    from pathlib import Path


def test_importing_the_stores_imports_no_client() -> None:
    """Neither Google's libraries nor obstore nor TensorFlow is loaded before a bucket is opened."""
    script = (
        "import sys, job.storage; job.storage.open_store('/tmp');"
        "print(sorted({'google', 'google_crc32c', 'obstore', 'requests', 'tensorflow'} & set(sys.modules)))"
    )

    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert "[]" == printed.strip()


@pytest.mark.parametrize("uri", ["gs:/bucket/d", "https://console.cloud.google.com/storage/browser/bucket/d;tab=x"])
def test_a_pasted_place_is_answered_with_the_uri_that_was_meant(uri: str) -> None:
    """What is pasted instead of a URI is a settings error with the right URI in it."""
    with pytest.raises(SettingsError, match="gs://bucket/d"):
        open_store(uri)


@pytest.mark.parametrize("uri", ["", "s3://bucket/d", "gs://"])
def test_other_places_are_settings_errors(uri: str) -> None:
    """What is no place at all, or one of a kind that is not supported, is a settings error."""
    with pytest.raises(SettingsError):
        open_store(uri)


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store's URI does not depend on where the process is later."""
    monkeypatch.chdir(tmp_path)

    assert str(tmp_path / "out") == open_store("out/").uri
