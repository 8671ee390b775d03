"""A headless Chromium that opens pages, driven by its DevTools protocol: https://chromedevtools.github.io/devtools-protocol."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import prerequisites
import websocket

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # the tests may be root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)


def program() -> str | None:
    """Return the path of the browser; None: there is none."""
    return next(filter(None, map(shutil.which, prerequisites.BROWSERS)), None)


class Seen(NamedTuple):
    """What happened while a page was open.

    Attributes:
        problems: errors and warnings of its console, and exceptions.
        requests: URLs that were requested, without the page's own and data: URLs.
    """

    problems: list[str]
    requests: list[str]


class Browser:
    """One tab of a running browser."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=30)
        self._numbers = itertools.count(1)
        self._events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := self._receive()).get("id") != number:
            pass
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    def open(self, path: Path, *, width: int, scheme: Literal["light", "dark"]) -> Seen:
        """Open a file in a window of a width in pixels, and return what happened until it was loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._receive()
        self.evaluate("document.fonts.ready.then(() => 1)")
        return Seen(self._problems(), [url for url in self._requested() if url != path.as_uri()])

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page as PNG."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(picture["data"]))

    def contrast(self, selector: str) -> float:
        """Return the least contrast of texts with what is behind each."""
        function = Path(__file__).with_name("contrast.js").read_text("utf-8").partition("\n")[2]
        found: float = self.evaluate(f"({function.rstrip()})({json.dumps(selector)})")
        return found

    def pages(self) -> int:
        """Return the number of sheets on which the page is printed."""
        document = base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])
        return document.count(b"/Type /Page\n")

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv())
        if "method" in message:
            self._events.append(message)
        return message

    def _problems(self) -> list[str]:
        found = []
        for event in self._events:
            parameters = event["params"]
            match event["method"]:
                case "Runtime.exceptionThrown":
                    found.append(str(parameters["exceptionDetails"]))
                case "Runtime.consoleAPICalled":
                    found.append(str(parameters["args"]))
                case "Log.entryAdded":
                    found.append(str(parameters["entry"]["text"]))
        return found

    def _requested(self) -> list[str]:
        urls = [
            event["params"]["request"]["url"]
            for event in self._events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith("data:")]


@contextlib.contextmanager
def running() -> Iterator[Browser]:
    """Start a browser with a new profile, and end it after the block."""
    path = program()
    assert path is not None, "chromium is not installed"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [path, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Browser(_address(Path(profile, "DevToolsActivePort"), process))
        finally:
            process.terminate()
            process.wait(20)


def _address(port_file: Path, process: subprocess.Popen[bytes]) -> str:
    """Return the WebSocket of the first tab, once the browser listens."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the browser ended with {process.returncode}"
        with contextlib.suppress(OSError, ValueError):
            return _first_tab(int(port_file.read_text().splitlines()[0]))
        time.sleep(0.1)
    raise TimeoutError("the browser does not listen")


def _first_tab(port: int) -> str:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:  # this machine's
        targets = json.load(answer)
    address: str = next(one["webSocketDebuggerUrl"] for one in targets if one["type"] == "page")
    return address
