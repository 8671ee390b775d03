"""The wheel that a user installs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import readme

import job

ROOT = Path(__file__).parents[2]

TEMPLATE = "from job.evaluation.report.page import render; print(render({}.get)['report/index.html'].decode())"

_DRY = ("--dry-run", "--no-index", "--no-build-isolation")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command, its coverage unmeasured since it runs other files, and return what it prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return subprocess.run(
        command, cwd=cwd, env=inherited | environment, stdout=subprocess.PIPE, text=True, check=True, timeout=120
    ).stdout


def test_the_built_wheel_runs_without_the_checkout(tmp_path: Path) -> None:
    """The wheel holds the package alone, and its console script runs from it."""
    target = tmp_path / "installed"

    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=ROOT)
    [wheel] = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel, cwd=tmp_path)
    origin = run(sys.executable, "-c", "import job; print(job.__file__)", cwd=tmp_path, PYTHONPATH=str(target))
    version = run(target / "bin" / "finetune", "--version", cwd=tmp_path, PYTHONPATH=str(target))

    template = run(sys.executable, "-c", TEMPLATE, cwd=tmp_path, PYTHONPATH=str(target))

    assert "<h1>a run</h1>" in template
    top = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {"job", f"finetune-{job.__version__}.dist-info"} == top
    assert Path(origin.strip()).is_relative_to(target)
    assert job.__version__ in version


def test_install_command_of_the_readme() -> None:
    """`pip install` of the README resolves: its extra exists, and its packages fit together.

    They are those of this environment, so that nothing is downloaded, and nothing is installed.
    """
    program, *arguments = shlex.split(readme.command("pip install"))

    said = run(sys.executable, "-m", program, *arguments, *_DRY, cwd=ROOT)

    assert f"Would install finetune-{job.__version__}\n" in said
    assert re.search("already satisfied: tensorflow-cpu", said)
