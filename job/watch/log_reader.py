"""Reads the log of a Pod as it is written."""

from __future__ import annotations

import datetime as dt
import queue
import threading
import time
from typing import TYPE_CHECKING

from job.observability import log

if TYPE_CHECKING:
    from job.observability.kube_events import Object
    from job.watch.api_reader import Cluster

_RECONNECT_SECONDS = 1.0  # after a failure


class LogReader:
    """Reads one Pod's log in a background thread.

    Attributes:
        ended: set when the container or the connection has ended.
        last: the timestamp of the last line.
    """

    def __init__(self, cluster: Cluster, pod: Object, *, after: str = "") -> None:
        self.ended = threading.Event()
        self.last = after
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._follow, args=(cluster, pod), name="log", daemon=True).start()

    def lines(self) -> list[str]:
        """Return the lines received since the last call."""
        return [self._lines.get_nowait() for _ in range(self._lines.qsize())]

    def _follow(self, cluster: Cluster, pod: Object) -> None:
        try:
            since = None
            if self.last:
                age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(self.last)
                since = int(age.total_seconds()) + 60  # margin for clock skew; lines read before are skipped below
            for timestamp, line in cluster.log_lines(pod, since):
                if timestamp > self.last:
                    self.last = timestamp
                    self._lines.put(line)
        except Exception as error:  # noqa: BLE001  # the next poll of the cluster reports the problem
            log.get().debug("log.disconnected", pod=pod["metadata"]["name"], error=error)
            time.sleep(_RECONNECT_SECONDS)
        finally:
            self.ended.set()
