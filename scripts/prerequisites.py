"""What `make test` needs of a machine. Run as a script, it says in a line each what is missing, before any test runs.

A test that skips takes its check and its reason from here, and so does the table in CONTRIBUTING.md.

    python scripts/prerequisites.py        exit code 1 where `make test` would fail
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT.parent / "shared" / "cluster"
FAKETIME = "*/faketime/libfaketimeMT.so.1"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")

GIGABYTE = 10**9
MEMORY = 4 * GIGABYTE
DISK = 10 * GIGABYTE

Without = Literal["fail", "may fail", "are skipped; with `CI` set that is a failure", "are left out"]
"""What becomes of the tests where it is missing."""


class Prerequisite(NamedTuple):
    """Something that tests need of the machine.

    Attributes:
        name: what it is.
        used_by: the tests that need it.
        without: what becomes of them.
        remedy: how to get it.
        is_met: looks for it.
    """

    name: str
    used_by: str
    without: Without
    remedy: str
    is_met: Callable[[], bool]


def _succeeds(*command: str | Path) -> bool:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def _available_memory() -> int:
    """Return the bytes that processes can allocate now."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


@cache
def _is_root() -> bool:
    return os.geteuid() == 0


@cache
def _can_mount() -> bool:
    """Whether a file can be mounted as a disk."""
    if not _is_root():
        return False
    with tempfile.TemporaryDirectory() as folder:
        image, disk = Path(folder, "image"), Path(folder, "disk")
        disk.mkdir()
        with image.open("wb") as file:
            file.truncate(2**21)
        if not (_succeeds("/sbin/mkfs.ext4", "-q", image) and _succeeds("mount", "-o", "loop", image, disk)):
            return False
        return _succeeds("umount", disk)


@cache
def _index_answers() -> bool:
    """Whether pip finds packages, or what the tests install is installed already."""
    environments = [
        ROOT / ".venv/proxy/installed.txt",
        *(ROOT / f".venv/keras-{v}/installed" for v in ("3.12.0", "3.14.0")),
    ]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "iniconfig"]
    with tempfile.TemporaryDirectory() as folder:
        return all(path.exists() for path in environments) or _succeeds(*pip, "--dest", folder)


@cache
def _engine_answers() -> bool:
    return _succeeds("docker", "version")


def _starts(program: str) -> bool:
    """Whether a program of the folder beside the project can start what is missing."""
    return _is_root() and os.access(CLUSTER / program, os.X_OK)


ALL = (
    Prerequisite(
        "Linux on x86-64",
        "all",
        "fail",
        "run it in a container or a virtual machine: TensorFlow has wheels for it",
        lambda: sys.platform == "linux" and platform.machine() == "x86_64",
    ),
    Prerequisite(
        f"{MEMORY // GIGABYTE} GB of available memory",
        "tests/pipeline, tests/faults",
        "may fail",
        "end other programs",
        lambda: _available_memory() >= MEMORY,
    ),
    Prerequisite(
        f"{DISK // GIGABYTE} GB of free disk",
        "all; most of it for the image",
        "may fail",
        "make clean, docker system prune",
        lambda: shutil.disk_usage(ROOT).free >= DISK,
    ),
    Prerequisite(
        "a package index",
        "tests/integration, tests/faults: the proxy, older versions of Keras",
        "are skipped; with `CI` set that is a failure",
        "set PIP_INDEX_URL, or a proxy; the first run installs them into .venv",
        _index_answers,
    ),
    Prerequisite(
        "root, with loop devices",
        "tests/faults: disks that fill up",
        "are skipped; with `CI` set that is a failure",
        "sudo, or a container with --privileged",
        _can_mount,
    ),
    Prerequisite(
        "root, with PID namespaces",
        "tests/faults: the first process of a container",
        "are skipped; with `CI` set that is a failure",
        "sudo, or a container with --privileged",
        cache(lambda: _is_root() and _succeeds(*UNSHARE, "true")),
    ),
    Prerequisite(
        "libfaketime",
        "tests/faults: a clock that jumps",
        "are skipped; with `CI` set that is a failure",
        "apt-get install faketime",
        lambda: any(Path("/usr/lib").glob(FAKETIME)),
    ),
    Prerequisite(
        "Chromium",
        "tests/integration: the report in a browser",
        "are skipped; with `CI` set that is a failure",
        "apt-get install chromium",
        lambda: any(map(shutil.which, BROWSERS)),
    ),
    Prerequisite(
        "promtool",
        "tests/chart: when each alert fires",
        "are skipped; with `CI` set that is a failure",
        "apt-get install prometheus",
        lambda: shutil.which("promtool") is not None,
    ),
    Prerequisite(
        "Helm 4 or 3",
        "tests/chart, tests/cluster",
        "are left out",
        "https://helm.sh/docs/intro/install",
        lambda: shutil.which("helm") is not None or (CLUSTER / "tools").exists(),
    ),
    Prerequisite(
        "a Docker engine, and git",
        "tests/image, tests/cluster",
        "are left out",
        "https://docs.docker.com/engine/install",
        lambda: shutil.which("git") is not None and (_engine_answers() or _starts("docker-up")),
    ),
    Prerequisite(
        "a Kubernetes cluster",
        "tests/cluster",
        "are left out",
        "set KUBECONFIG; its nodes must have the image, or FINETUNE_TEST_IMAGE name one",
        lambda: "KUBECONFIG" in os.environ or _starts("up"),
    ),
    Prerequisite(
        "ctr of the cluster's node",
        "tests/cluster: a container that is killed",
        "are skipped; with `CI` set that is a failure",
        "run the tests on a node, with containerd's ctr on the path",
        lambda: "KUBECONFIG" not in os.environ or shutil.which("ctr") is not None,
    ),
)


def reason_to_skip(name: str) -> str:
    """Return why a test that needs this prerequisite is skipped; empty where it is met."""
    [found] = [one for one in ALL if one.name == name]
    return "" if found.is_met() else f"there is no {name}: {found.remedy}"


def table() -> str:
    """Return the table of CONTRIBUTING.md."""
    rows = [f"| {one.name} | {one.used_by} | {one.without} | {one.remedy} |" for one in ALL]
    return (
        "\n".join(["| `make test` needs | for | without it these | how to get it |", "|---|---|---|---|", *rows]) + "\n"
    )


def main() -> int:
    """Print a line for each prerequisite that is missing; return 1 where the suite would fail for one."""
    fails = False
    for one in ALL:
        if one.is_met():
            continue
        fails |= one.without == "fail" or (bool(os.environ.get("CI")) and one.without.startswith("are skipped"))
        print(
            f"missing: {one.name}. Without it these {one.without}: {one.used_by}. Remedy: {one.remedy}", file=sys.stderr
        )
    return int(fails)


if __name__ == "__main__":
    sys.exit(main())
