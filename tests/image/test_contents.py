"""What is in the image, and what is not."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pip
import pytest
from containers import IMAGE, ROOT, TEMPORARY, docker, run

from job import __version__
from job.model.backbones import file_name

pytestmark = pytest.mark.long  # the first of them builds the image, beside which other files have their time


@pytest.fixture(scope="module")
def config() -> Any:
    """Return the image's configuration."""
    return json.loads(docker("image", "inspect", IMAGE).stdout)[0]["Config"]


AS_ROOT = ("--user", "0")
"""So that every folder can be looked into."""


def shell(script: str, *options: str) -> str:
    """Run a script in the image, and return what it prints."""
    ended = run("-c", script, options=("--entrypoint", "/bin/sh", *options))
    assert 0 == ended.code, ended.err
    return ended.out


def test_help() -> None:
    """The image's entrypoint prints the help."""
    ended = run()

    assert 0 == ended.code
    assert "usage: finetune COMMAND" in ended.out


def test_program_is_the_entry_point_and_no_user_is_root(config: Any) -> None:
    """The program is process 1, without a shell, and its user is a numeric non-root ID."""
    assert ["finetune"] == config["Entrypoint"]
    assert "65532:65532" == config["User"]
    assert ["NONE"] == config["Healthcheck"]["Test"]


def test_labels(config: Any) -> None:
    """The labels name version, revision, source and base image."""
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert __version__ == labels["version"]
    assert commit.stdout.strip() == labels["revision"]
    assert {"title", "description", "licenses", "source", "base.name"} < set(labels)


def test_program_is_installed_from_its_wheel() -> None:
    """The installed package runs, and the image contains no sources."""
    [origin, *files] = shell(
        "python -c 'import job; print(job.__file__)';find / -xdev -name fetch_weights.py -o -xdev -name pyproject.toml",
        *AS_ROOT,
    ).splitlines()

    assert "/opt/finetune/venv/lib/python3." in origin
    assert "/site-packages/job/__init__.py" in origin
    assert [] == [name for name in files if not name.startswith("/opt/finetune/venv/")]


def test_nothing_to_build_with() -> None:
    """The image contains no compiler, no installer and no cache of one."""
    found = shell(
        "for name in pip pip3 uv cc gcc make; do command -v $name; done;"
        "ls -d /root/.cache /opt/build /mnt/* 2>/dev/null;"
        "ls /opt/finetune/venv/lib/python3*/site-packages | grep ^pip;"
        "find /opt/finetune -name '*.a' -o -name 'include' -path '*tensorflow*'; true"
    )

    assert "" == found


def test_packages_fit_together() -> None:
    """Every package's needs are met, by the versions that it asks for."""
    installer = Path(pip.__file__).parent

    ended = run(
        "/pip", "check", options=("--entrypoint", "/opt/finetune/venv/bin/python", "--volume", f"{installer}:/pip:ro")
    )

    assert (0, "No broken requirements found.") == (ended.code, ended.out.strip())


def test_packages_are_those_of_the_lock() -> None:
    """The bill of materials names every package with its version, and is reproducible."""
    document = json.loads(shell("cat /opt/finetune/sbom.cdx.json"))
    listed = {component["name"].lower().replace("_", "-"): component["version"] for component in document["components"]}
    lock = (ROOT / "requirements/cpu.txt").read_text()
    locked = dict(re.findall(r"^([a-z0-9][a-z0-9.-]*)==([^ ;\\]+)", lock, re.MULTILINE))

    assert "CycloneDX" == document["bomFormat"]
    assert listed == {**{name: version for name, version in locked.items() if name in listed}, "finetune": __version__}
    assert {"tensorflow-cpu", "keras", "numpy", "obstore"} < set(listed)
    assert "timestamp" not in document["metadata"]
    assert "serialNumber" not in document


def test_weights_are_a_layer_of_their_own() -> None:
    """The ImageNet weights of the default model are at the path of the default settings, in a layer of their own."""
    name = file_name("MobileNetV2", 1.0, 224)

    history = docker("history", "--no-trunc", "--format", "{{.Size}} {{.CreatedBy}}", IMAGE).stdout

    assert name == shell("ls /opt/finetune/weights").strip()
    assert any("/opt/finetune/weights" in line and not line.startswith("0B") for line in history.splitlines())


def test_no_secret_and_no_certificate_is_left() -> None:
    """No layer contains the build's certificates or their mount point."""
    assert "" == shell("ls -A /run/secrets 2>/dev/null; true")


@pytest.mark.parametrize("user", ["65532:65532", "1000740000:0"])
def test_nothing_can_be_written_but_what_is_meant_to_be(user: str) -> None:
    """Neither the default user nor an arbitrary one can change a file of the image."""
    writable = shell("find / -xdev -writable ! -type l ! -path '/proc/*' 2>/dev/null; true", "--user", user)

    assert {TEMPORARY[1], "/cache", "/output"} == set(writable.split())


def test_with_a_read_only_root_only_temporary_files_can_be_written() -> None:
    """With --read-only only mounted folders are writable."""
    writable = shell(
        "find / -xdev -writable -type d ! -path '/proc/*' 2>/dev/null; test -w /tmp && echo /tmp",
        "--read-only",
        *TEMPORARY,
    )

    assert {TEMPORARY[1]} == set(writable.split())


def test_nobody_can_become_root() -> None:
    """No file of the image has a setuid or setgid bit."""
    assert "" == shell("find / -xdev -type f -perm /6000", *AS_ROOT)


def test_every_module_is_compiled() -> None:
    """Every module is compiled in the image, so Python compiles none at the start."""
    missing = shell(
        "cd /opt/finetune/venv/lib/python3*/site-packages; python -c 'import job.pipeline';"
        "for file in job/*.py tensorflow/__init__.py keras/__init__.py; do"
        '  ls "$(dirname $file)/__pycache__/$(basename $file .py)".cpython-*.pyc >/dev/null || echo $file; done'
    )

    assert "" == missing
