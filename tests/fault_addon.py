"""What mitmproxy does to the requests that pass through it. Runs in mitmproxy's own environment, not in the project's.

Of each request it tells the test, over a socket that both inherited, and is told what to do with it: see `Fault` in
fault_proxy.py. A line of JSON each way; the proxy ends when the test closes its side.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import TYPE_CHECKING, Any

from mitmproxy import ctx, http

if TYPE_CHECKING:
    from mitmproxy.addonmanager import Loader

LONGEST_LINE = 64 * 1024**2  # an answer's body may be in it
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER in socket(7)


class FaultAddon:
    """Applies the faults that the test chooses."""

    def __init__(self) -> None:
        self._told: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._faults: dict[str, dict[str, Any]] = {}

    def load(self, loader: Loader) -> None:
        """Take an option: the socket."""
        loader.add_option("test_socket", int, 0, "The number of the inherited socket on which the test listens.")

    async def running(self) -> None:
        """Connect to the test."""
        test = socket.socket(fileno=ctx.options.test_socket)
        reader, self._writer = await asyncio.open_connection(sock=test, limit=LONGEST_LINE)
        self._listener = asyncio.create_task(self._listen(reader))

    async def request(self, flow: http.HTTPFlow) -> None:
        """Ask what is to be done with a request; wait, answer or hang up as told."""
        told = self._told[flow.id] = asyncio.get_running_loop().create_future()
        headers = {name.lower(): value for name, value in flow.request.headers.items()}
        start = (flow.request.raw_content or b"")[:1000].decode("latin-1")
        self._tell(id=flow.id, seen=[flow.request.method, flow.request.path, headers, start])
        fault = await told
        if not fault:
            return
        await asyncio.sleep(fault["delay"])
        if fault["hang_up"] == "before":
            self._reset(flow)
            flow.kill()
        if fault["status"]:
            body = (fault["body"] or "").encode("latin-1")
            flow.response = http.Response.make(fault["status"], body, fault["headers"])
        self._faults[flow.id] = fault
        if fault["hang_up"] == "before" or not (fault["damages"] or fault["hang_up"]):
            self._done(flow)

    def response(self, flow: http.HTTPFlow) -> None:
        """Damage the answer, or lose it."""
        fault = self._faults.get(flow.id)
        if not fault:
            return
        assert flow.response is not None
        if fault["hang_up"] == "after":
            self._reset(flow)
            flow.kill()
            self._done(flow)
            return
        whole = body = flow.response.raw_content or b""
        if fault["replace"]:
            body = body.replace(*(text.encode() for text in fault["replace"]))
        if fault["flip"] and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        if fault["cut_to"] is not None:
            body = body[: int(len(body) * fault["cut_to"])]
            # The length that it had stays, and the connection ends after less. Chunks would end in good order.
            flow.response.headers.pop("transfer-encoding", None)
            flow.response.headers["connection"] = "close"
            if fault["reset"]:
                self._reset(flow)
        if body != whole:
            flow.response.headers["content-length"] = str(len(whole if fault["cut_to"] is not None else body))
            flow.response.raw_content = body
            self._done(flow)

    def _reset(self, flow: http.HTTPFlow) -> None:
        """Let the connection to the client end in a reset when it is closed."""
        handler = ctx.master.addons.get("proxyserver").connections.get(flow.client_conn.id)
        if handler and flow.client_conn in handler.transports:  # else the client has gone
            client = handler.transports[flow.client_conn].writer.get_extra_info("socket")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)

    def _done(self, flow: http.HTTPFlow) -> None:
        """Tell that a fault was carried out."""
        if self._faults.pop(flow.id, None):
            self._tell(id=flow.id, done=True)

    def _tell(self, **message: Any) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            async for line in reader:
                message = json.loads(line)
                if "server" in message:
                    ctx.options.server = message["server"]
                else:
                    self._told.pop(message["id"]).set_result(message["fault"])
        finally:
            ctx.master.shutdown()


addons = [FaultAddon()]
