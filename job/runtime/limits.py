"""How much memory and disk this process may use: the limits of its cgroup, its mounts and the machine."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

_CGROUP = Path("/sys/fs/cgroup")


class Memory(NamedTuple):
    """Memory in bytes.

    Attributes:
        limit: of the cgroup, or the machine's memory.
        available: of it, without swapping.
        of_cgroup: whether the cgroup has a limit below the machine's memory.
    """

    limit: int
    available: int
    of_cgroup: bool


def memory(cgroup: Path = _CGROUP, meminfo: Path = Path("/proc/meminfo")) -> Memory:
    """Return the memory of this process's container, or of the machine.

    Args:
        cgroup: mount point of the cgroup file system, version 1 or 2.
        meminfo: of the kernel.
    """
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    total, available = (1024 * int(fields[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    limit = _number(cgroup / "memory.max", cgroup / "memory/memory.limit_in_bytes")
    if limit is None or limit >= total:
        return Memory(total, available, of_cgroup=False)
    used = _number(cgroup / "memory.current", cgroup / "memory/memory.usage_in_bytes") or 0
    reclaimable = _reclaimable(cgroup / "memory.stat", cgroup / "memory/memory.stat")
    return Memory(limit, min(available, limit - max(0, used - reclaimable)), of_cgroup=True)


class Disk(NamedTuple):
    """The file system of a folder.

    Attributes:
        folder: the nearest parent that exists.
        free: bytes that this user may still write.
        total: bytes.
        writable: whether this user may write into the folder.
    """

    folder: Path
    free: int
    total: int
    writable: bool


def disk(folder: Path) -> Disk:
    """Return the file system of a folder, which need not exist.

    Raises:
        OSError: it cannot be examined.
    """
    # Path.exists raises if a parent may not be entered.
    existing = next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))  # noqa: PTH110
    usage = shutil.disk_usage(existing)
    writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)  # a read-only mount counts, too
    return Disk(existing, usage.free, usage.total, writable)


def shared_memory(folder: Path = Path("/dev/shm")) -> int | None:  # noqa: S108  # nothing is written
    """Return the size of the shared memory in bytes; None if there is none."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(folder).total
    return None


def _number(*paths: Path) -> int | None:
    """Return the number in the first file that exists; None without one, and for "max"."""
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            return int(path.read_text())
    return None


def _reclaimable(*paths: Path) -> int:
    """Return the bytes of cached files that the kernel drops when memory is needed."""
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            fields = dict(line.split() for line in path.read_text().splitlines())
            return int(fields.get("total_inactive_file") or fields.get("inactive_file") or 0)
    return 0
