"""The claim on a run: two processes must not work on it at the same time.

The claim is part of the run's checkpoint index, which every write moves by generation match, and it is renewed with
every write. The same owner takes its run over at once: the new Pod of a Job replaces the old one, which may still run
on a node that is cut off. Another owner waits until the claim is released, or has not been renewed for a while.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job import errors
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Callable

Document = dict[str, Any]


def _this_process() -> Document:
    return {
        "host": socket.gethostname(),
        "pid_namespace": _pid_namespace(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def _pid_namespace() -> int | None:
    """Return this process's PID namespace: a PID identifies a process only within one."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """Return when a process of this machine started, in clock ticks since boot; None if there is no such process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return None


@dataclass(frozen=True, kw_only=True)
class Claimant:
    """This process, as it claims a run.

    Attributes:
        owner: the Job's UID; empty: this process alone.
        takeover_seconds: how long another owner's claim is respected without being renewed.
        process: what identifies this process.
    """

    owner: str
    takeover_seconds: float
    process: Document = field(default_factory=_this_process)

    def claim(self, *, released: bool) -> Document:
        """Return the claim that is written into the index.

        Args:
            released: another owner need not wait any more.
        """
        return {"owner": self.owner, "process": self.process, "released": released, "renewed_at": log.timestamp()}

    def wait_until_free(self, read_index: Callable[[], tuple[Document, int]]) -> tuple[Document, int]:
        """Wait until no other owner works on the run, and return its index with the generation.

        Args:
            read_index: returns the index, empty if there is none, and its generation, 0 if there is none.

        Raises:
            errors.SettingsError: another owner renewed its claim meanwhile.
        """
        started, first = time.monotonic(), None
        while True:
            document, generation = read_index()
            claim = document.get("claim", {})
            silent = generation == first and time.monotonic() - started >= self.takeover_seconds
            if silent or not self._is_excluded_by(claim):
                return document, generation
            holder = claim["owner"] or "process {pid} on {host}".format(**claim["process"])
            if first is None:
                first = generation
                log.get().warning("claim.waiting", holder=holder, seconds=self.takeover_seconds)
            elif generation != first:
                raise errors.SettingsError(
                    f"{holder} works on this run, and has renewed its claim just now",
                    remedy="wait until it has ended, or stop it; or give this run another run.id",
                )
            time.sleep(min(5.0, self.takeover_seconds / 10))

    def _is_excluded_by(self, claim: Document) -> bool:
        """Whether the claim belongs to another owner that may be alive."""
        if not claim or claim["released"]:
            return False
        if claim["owner"] or self.owner:
            return bool(claim["owner"] != self.owner)
        process = claim["process"]
        # Containers may share a host's name, and each counts its processes from 1.
        here = all(process.get(name) == self.process[name] for name in ("host", "pid_namespace"))
        return not here or (process != self.process and _started(process["pid"]) == process["started"])
