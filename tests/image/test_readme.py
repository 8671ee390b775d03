"""The README's commands for Docker, as they are printed, with the CPU's image and a shorter run."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import readme
from containers import IMAGE

if TYPE_CHECKING:
    from pathlib import Path

SHORT = "--model.image_size 32 --feature_extraction.epochs 1 --fine_tuning.epochs 1 --export.verify_images 4"


def test_docker_commands(pictures: Path, folder: Path) -> None:
    """A folder is made, the container is run as this user, and the model is in the folder and belongs to this user."""
    assert folder / "pictures" == pictures
    docker = readme.command("docker run").replace("--gpus all ", "").replace("finetune:gpu", IMAGE)
    script = f"{readme.command('mkdir')}\n{docker} {SHORT}\n"

    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )

    assert 0 == done.returncode, done.stderr[-2000:]
    [model] = (folder / "trained/runs").glob("*/model/model.keras")
    assert os.geteuid() == model.stat().st_uid
