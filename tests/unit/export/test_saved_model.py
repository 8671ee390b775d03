"""The exported model's files; tests/pipeline/test_saved_model.py compares what they answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from classifiers import small_classifier

from job.errors import UnavailableError
from job.export import saved_model

if TYPE_CHECKING:
    from pathlib import Path


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder that cannot be made ends the run with exit code 20, naming it."""
    (tmp_path / "file").touch()

    with pytest.raises(UnavailableError, match=f"cannot be written to {tmp_path}/file/model") as caught:
        saved_model.save(small_classifier(), tmp_path / "file" / "model", max_pixels=10**6)
    assert 20 == caught.value.exit_code
