"""An emulator that cannot be started says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from job.errors import SettingsError, UnavailableError
from job.storage import emulator

if TYPE_CHECKING:
    from pathlib import Path


def test_one_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has what the program printed."""
    program = tmp_path / "fake_wheel/vendor/fake-gcs-server/bin/fake-gcs-server-any"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho no space for a server\nexit 1\n")
    program.chmod(0o755)
    (tmp_path / "fake_wheel/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(emulator, "PACKAGE", "fake_wheel")

    with pytest.raises(UnavailableError, match="no space for a server"), emulator.running():
        pass


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel the error says which extra has it."""
    monkeypatch.setattr(emulator, "PACKAGE", "no_such_package")

    with pytest.raises(SettingsError) as caught, emulator.running():
        pass

    assert "pip install '.[cpu,demo]'" in caught.value.remedy
