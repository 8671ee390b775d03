"""The log of a Pod, over a connection that may be cut."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from job.watch.api_reader import Cluster
from job.watch.log_reader import LogReader

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class _CutLog(BaseHTTPRequestHandler):
    """A Pod's log of six lines, as the API server sends it. The first answer ends within the fourth line."""

    protocol_version = "HTTP/1.1"
    began = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=100)
    answers = itertools.count()

    def do_GET(self) -> None:  # http.server's name
        cut = next(self.answers) == 0
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(4 if cut else 6):
            when = (self.began + dt.timedelta(seconds=number)).isoformat()
            line = f"{when} caf\u00e9 {number}\n".encode()
            for piece in (line[:-4], line[-4:]) if not cut or number < 3 else (line[:-4],):  # in mid-character
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Write no log."""


def test_a_log_that_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log whose connection is cut is read again from where it was: every line comes once and whole."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _CutLog) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        named = {"clusters": {"server": f"http://127.0.0.1:{server.server_port}"}, "users": {}}
        named["contexts"] = {"cluster": "c", "user": "u"}
        kubeconfig = {key: [{"name": key[0], key[:-1]: value}] for key, value in named.items()}
        kubeconfig["contexts"][0]["name"] = "x"
        (tmp_path / "config").write_text(json.dumps(kubeconfig | {"current-context": "x"}))
        monkeypatch.setattr("job.watch.log_reader._RECONNECT_SECONDS", 0.05)
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
        cluster = Cluster()

        pod = {"metadata": {"name": "pod"}, "spec": {"containers": [{"name": "finetune"}]}}
        first = LogReader(cluster, pod)
        assert first.ended.wait(120)
        second = LogReader(cluster, pod, after=first.last)
        assert second.ended.wait(120)
        server.shutdown()

    assert [f"caf\u00e9 {number}" for number in range(3)] == first.lines()
    assert [f"caf\u00e9 {number}" for number in range(3, 6)] == second.lines()
