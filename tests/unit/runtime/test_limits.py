"""Memory and disk that a process may use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from job.runtime import limits

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30
MEMINFO = f"MemTotal: {8 * GIB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {6 * GIB // 1024} kB\n"


def write(folder: Path, **files: object) -> None:
    """Write the files of a cgroup; their names have dots for underscores."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    """Return the kernel's file of a machine with 8 GiB, of which 6 are available."""
    (tmp_path / "meminfo").write_text(MEMINFO)
    return tmp_path / "meminfo"


def test_memory_of_a_cgroup(tmp_path: Path, meminfo: Path) -> None:
    """In both versions the limit counts, and cached files do not count as used."""
    write(tmp_path / "2", memory__max=4 * GIB, memory__current=3 * GIB, memory__stat=f"anon 1\ninactive_file {GIB}")
    version_1 = tmp_path / "1/memory"
    write(version_1, memory__limit_in_bytes=4 * GIB, memory__usage_in_bytes=3 * GIB)
    write(version_1, memory__stat=f"inactive_file 1\ntotal_inactive_file {GIB}")

    for version in ("1", "2"):
        assert limits.Memory(4 * GIB, 2 * GIB, of_cgroup=True) == limits.memory(tmp_path / version, meminfo)


@pytest.mark.parametrize("limit", ["max", 2**63 - 4096, 9 * GIB, None])
def test_memory_of_the_machine(tmp_path: Path, meminfo: Path, limit: object) -> None:
    """Without a limit below it, it is the machine's memory."""
    if limit is not None:
        write(tmp_path, memory__max=limit)

    assert limits.Memory(8 * GIB, 6 * GIB, of_cgroup=False) == limits.memory(tmp_path, meminfo)


def test_available_memory_of_a_full_machine(tmp_path: Path, meminfo: Path) -> None:
    """A cgroup has no more than the machine still has."""
    write(tmp_path, memory__max=7 * GIB, memory__current=0)

    assert 6 * GIB == limits.memory(tmp_path, meminfo).available


def test_disk(tmp_path: Path) -> None:
    """A folder that does not exist yet has the disk of its nearest parent."""
    found = limits.disk(tmp_path / "a/b")

    assert (tmp_path, True) == (found.folder, found.writable)
    assert 0 <= found.free <= found.total


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """Nothing can be written below a file, by any user."""
    (tmp_path / "a").touch()

    assert not limits.disk(tmp_path / "a/b").writable


def test_shared_memory(tmp_path: Path) -> None:
    """Its size is that of its file system; there may be none."""
    status = os.statvfs(tmp_path)

    assert status.f_blocks * status.f_frsize == limits.shared_memory(tmp_path)
    assert limits.shared_memory(tmp_path / "none") is None
