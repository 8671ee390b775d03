"""The claim on a run: a lease that keeps two processes from working on it at the same time.

The claim is part of the run's checkpoint index. Every write of the index is conditional on its generation and renews
the claim. The same owner takes over immediately: the new Pod of a Job replaces the old one, which may still be running
on a partitioned node. Another owner waits until the claim is released or expires.
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

MAX_RENEWALS = 2
"""Renewals by another owner after which a process stops waiting for it."""


def _current_process() -> Document:
    return {
        "host": socket.gethostname(),
        "pid_namespace": _pid_namespace(),
        "pid": os.getpid(),
        "started": _start_time(os.getpid()),
    }


def _pid_namespace() -> int | None:
    """Return this process's PID namespace: a PID is unique only within its namespace."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None


def _start_time(pid: int) -> str | None:
    """Return a process's start time, as boot ID and clock ticks since boot; None if there is no such process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return None


@dataclass(frozen=True, kw_only=True)
class Claimant:
    """This process as a claimant of a run.

    Attributes:
        owner: the Job's UID; empty: this process alone.
        takeover_seconds: seconds after which another owner's claim expires unless it is renewed.
        process: identifies this process.
    """

    owner: str
    takeover_seconds: float
    process: Document = field(default_factory=_current_process)

    def claim(self, *, released: bool) -> Document:
        """Return the claim to write into the index.

        Args:
            released: other owners may take the run over immediately.
        """
        return {"owner": self.owner, "process": self.process, "released": released, "renewed_at": log.timestamp()}

    def wait_until_free(self, read_index: Callable[[], tuple[Document, int]]) -> tuple[Document, int]:
        """Wait until no other owner holds the run, and return its index and the index's generation.

        Args:
            read_index: returns the index and its generation; an empty one and 0 if there is none.

        Raises:
            errors.StoppedError: another owner renewed its claim twice during the wait, so it works on the run. Once may
                have been the last time: a stopped process saves before it ends.
        """
        renewals, last_generation, renewed = -1, None, 0.0
        while True:
            document, generation = read_index()
            claim = document["claim"]
            if is_new := generation != last_generation:
                renewals, last_generation, renewed = renewals + 1, generation, time.monotonic()
            if time.monotonic() - renewed >= self.takeover_seconds or not self._is_blocked_by(claim):
                return document, generation
            holder = _name(claim)
            if renewals >= MAX_RENEWALS:
                raise errors.StoppedError(
                    f"{holder} works on this run: it has renewed its claim {renewals} times during the wait",
                    remedy="nothing to do: that process finishes the run; stop it first to run it here",
                )
            if is_new:
                log.get().warning("claim.waiting", holder=holder, seconds=self.takeover_seconds, renewals=renewals)
            time.sleep(min(5.0, self.takeover_seconds / 10))

    def find_holder(self, claim: Document | None, age: float) -> str | None:
        """Return who works on a run, as far as one look at its claim shows; None: another start could take it over.

        Args:
            claim: of the run; None: there is none.
            age: seconds since the claim was written.
        """
        is_held = claim is not None and age < self.takeover_seconds and self._is_blocked_by(claim)
        return _name(claim) if claim and is_held else None

    def _is_blocked_by(self, claim: Document | None) -> bool:
        """Return whether the claim belongs to another owner that may be alive."""
        if not claim or claim["released"]:
            return False
        if claim["owner"] or self.owner:
            return bool(claim["owner"] != self.owner)
        process = claim["process"]
        # Containers may share a host name, and each numbers its processes from 1.
        is_local = all(process.get(name) == self.process[name] for name in ("host", "pid_namespace"))
        return not is_local or (process != self.process and _start_time(process["pid"]) == process["started"])


def _name(claim: Document) -> str:
    """Return the name of a claim's owner, for people."""
    return str(claim["owner"] or "process {pid} on {host}".format(**claim["process"]))
