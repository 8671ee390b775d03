"""How the Pods of a Job ended, and which end decided how the Job did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from job.watch.pods import container_state, counts, deciding_pod, was_rejected, worker_index

if TYPE_CHECKING:
    from collections.abc import Mapping

    from job.observability.kube_events import Object

_LIMITS = ("BackoffLimitExceeded", "MaxFailedIndexesExceeded", "FailedIndexes")
"""Reasons of a failed Job that has had too many failed Pods."""


class Ends:
    """The ends of a Job's Pods that the Job counts."""

    def __init__(self) -> None:
        self._counted: dict[str, tuple[str, int | None]] = {}  # name of the Pod -> time, exit code
        self._is_indexed = False

    def add(self, pod: Object, code: int | None) -> None:
        """Add the end of a Pod.

        Args:
            pod: that has ended, as last seen.
            code: of its container; None: unknown.
        """
        self._is_indexed |= worker_index(pod) is not None
        is_known = code is not None or was_rejected(pod)
        if is_known and counts(pod, code):
            time = (container_state(pod).get("terminated") or {}).get("finishedAt") or ""
            self._counted[pod["metadata"]["name"]] = (time, code)

    def deciding_code(self, condition: Mapping[str, Any]) -> int | None:
        """Return the exit code of the Pod that decided that the Job failed; None if none did, or it is unknown.

        It need not be the last one to end: Kubernetes then stops the Pods of the other workers.

        Args:
            condition: of the Job, of type Failed.
        """
        if deciding := deciding_pod(condition):
            return deciding[1]
        if condition.get("reason") in _LIMITS and self._counted:
            # note: of several at the same second, the one that was added last
            return max(reversed(self._counted.values()), key=lambda end: end[0])[1]
        return None

    def is_deciding_unknown(self, job: Object, condition: Mapping[str, Any]) -> bool:
        """Return whether the Pod that decided that the Job failed is gone, as with its node.

        Args:
            job: as the API server returned it.
            condition: of the Job, of type Failed.
        """
        if deciding := deciding_pod(condition):
            return deciding[0] not in self._counted
        if condition.get("reason") not in _LIMITS:
            return False
        # note: of several workers, the Pods that Kubernetes stopped are gone as well
        return not self._counted if self._is_indexed else len(self._counted) < job["status"].get("failed", 0)
