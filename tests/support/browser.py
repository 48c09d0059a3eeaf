"""Pages in a real browser: headless Chromium, told what to do over its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/ has the methods and events; messages are JSON in the frames of a
WebSocket (RFC 6455), of which a client needs little.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 60
"""That the browser may take to start, or to answer."""
UNPACKED = "!document.getElementById('packed') || document.documentElement.matches('.live, .failed')"
"""Whether a page shows its items."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a browser made of a page: lines on its console, widths in pixels, what was fetched, what a script found."""

    console: list[str]
    scroll: int
    client: int
    loaded: list[str]
    found: Any


class Browser:
    """One process of Chromium with one page, for all that is to be looked at.

    Args:
        folder: for its profile.
    """

    SAID: ClassVar = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        # As root, in a container, there is neither a sandbox nor a large /dev/shm.
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += ["--hide-scrollbars", "--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}"]
        self._process = subprocess.Popen(
            [*command, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._events: list[dict[str, Any]] = []
        self._calls = 0
        self._socket = self._connected(folder / "profile" / "DevToolsActivePort")
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(SECONDS)

    def show(self, page: Path, width: int, height: int = 900, *, picture: Path | None = None, script: str = "") -> Seen:
        """Open ``page`` in a window of ``width`` times ``height`` pixels.

        Args:
            picture: where to keep a screenshot.
            script: body of an async function that is run once the page is there; what it returns is ``found``.
        """
        self.call("Page.navigate", url="about:blank")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self._events.clear()
        self.call("Page.navigate", url=page.as_uri())
        end = time.monotonic() + SECONDS
        while not self._run(f"document.readyState === 'complete' && location.protocol === 'file:' && ({UNPACKED})"):
            assert time.monotonic() < end, self._events
            time.sleep(0.02)
        found = self._run(f"(async () => {{ {script} }})()")
        scroll, client = self._run("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        if picture is not None:
            picture.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
        console = [json.dumps(event["params"]) for event in self._events if event["method"] in self.SAID]
        asked = [e["params"]["request"]["url"] for e in self._events if e["method"] == "Network.requestWillBeSent"]
        loaded = [url for url in asked if url != page.as_uri() and not url.startswith("data:")]
        return Seen(console, scroll, client, loaded, found)

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a method of the protocol; events that come meanwhile are kept."""
        self._calls += 1
        self._send(json.dumps({"id": self._calls, "method": method, "params": parameters}).encode())
        while (answer := self._receive()).get("id") != self._calls:
            self._events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _run(self, expression: str) -> Any:
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def _connected(self, told: Path) -> socket.socket:
        """A connection to the one page, where ``told`` has the port."""
        end = time.monotonic() + SECONDS
        while not (told.exists() and told.read_text().count("\n")):
            assert self._process.poll() is None, "Chromium ended"
            assert time.monotonic() < end, "Chromium does not answer"
            time.sleep(0.05)
        port = int(told.read_text().split("\n")[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=SECONDS) as answer:
            page = next(target for target in json.load(answer) if target["type"] == "page")
        path = page["webSocketDebuggerUrl"].split(str(port), 1)[1]
        connection = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        key = base64.b64encode(os.urandom(16)).decode()
        head = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13")
        connection.sendall("\r\n".join((f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *head, "", "")).encode())
        answered = b""
        while not answered.endswith(b"\r\n\r\n"):
            answered += connection.recv(1)
        assert b" 101 " in answered, answered
        return connection

    def _send(self, text: bytes) -> None:
        """One masked frame of text, with the longest form of its length."""
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
        self._socket.sendall(b"\x81\xff" + len(text).to_bytes(8, "big") + mask + masked)

    def _receive(self) -> dict[str, Any]:
        """One message, of one frame or of several."""
        text, last = b"", False
        while not last:
            first, size = self._exactly(2)
            last = bool(first & 0x80)
            more = {126: 2, 127: 8}.get(size, 0)
            text += self._exactly(int.from_bytes(self._exactly(more), "big") if more else size)
        message: dict[str, Any] = json.loads(text)
        return message

    def _exactly(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            more = self._socket.recv(size - len(found))
            assert more, "Chromium hung up"
            found += more
        return bytes(found)
