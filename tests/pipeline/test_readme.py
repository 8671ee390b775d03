"""The README's command for a run and its Python, as they are printed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import readme
from runs import SMALL, only_run

from job import storage
from job.storage import emulator as emulators

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_run(emulator: str, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command trains on a bucket's folders and publishes to a bucket; only the model is made smaller."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    emulators.create_bucket(emulator, "my-bucket")
    store = storage.open_store("gs://my-bucket")
    for path in pictures.rglob("*.*"):
        store.write(f"flowers/{path.relative_to(pictures)}", path.read_bytes())
    program, *arguments = shlex.split(readme.command("finetune run --input.uri"))

    done = subprocess.run(
        [sys.executable, "-m", "job", *arguments, *SMALL], env=os.environ, capture_output=True, text=True, check=False
    )

    assert "finetune" == program
    assert 0 == done.returncode, done.stderr[-2000:]
    names = [entry.name for entry in store.list()]
    assert "trained/latest.json" in names
    assert any(re.fullmatch(r"trained/runs/[^/]+/model/saved_model/saved_model.pb", name) for name in names)


def test_python(published: Path, pictures: Path, tmp_path: Path) -> None:
    """The snippet prints each picture of a folder with its label and the probability of that."""
    shutil.copytree(only_run(published), tmp_path / "trained/runs/ID")
    (tmp_path / "pictures").mkdir()
    for path in sorted(pictures.glob("*/*.jpg"))[:3]:
        shutil.copy(path, tmp_path / "pictures")
    [source] = readme.code("python")

    done = subprocess.run(
        [sys.executable, "-I", "-c", source], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stderr
    lines = done.stdout.splitlines()
    assert 3 == len(lines)
    for line in lines:
        assert re.fullmatch(r"pictures/\d+\.jpg (dark|light) (0\.[5-9]\d|1\.00)", line)
