"""A page in a real browser, as wide as asked: what it says on its console, and how wide it came out."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# The frame, not the window: headless Chromium has no windows narrower than 500 pixels.
FRAME = """<!doctype html><body style="margin:0">
<iframe id="f" style="border:0;width:{width}px;height:{height}px" srcdoc="{page}"></iframe>
<script>
document.getElementById("f").addEventListener("load", (event) => {{
  const root = event.target.contentDocument.documentElement;
  const seen = {{ scroll: root.scrollWidth, client: root.clientWidth, height: root.scrollHeight,
    loaded: event.target.contentWindow.performance.getEntriesByType("resource").map((entry) => entry.name) }};
  document.body.appendChild(document.createElement("pre")).textContent = "SEEN" + JSON.stringify(seen) + "SEEN";
}});
</script>"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a browser made of a page: lines on its console, widths in pixels, what was fetched."""

    console: list[str]
    scroll: int
    client: int
    height: int
    loaded: list[str]


def show(page: Path, folder: Path, width: int, height: int = 900, picture: Path | None = None) -> Seen:
    """Open ``page`` in a frame of ``width`` pixels.

    Args:
        folder: for the frame's file and the browser's profile.
        picture: where to keep a screenshot.
    """
    frame = folder / f"frame-{width}.html"
    frame.write_text(FRAME.format(width=width, height=height, page=html.escape(page.read_text())), encoding="utf-8")
    done = _chromium(folder, frame, max(width, 500), height, "--dump-dom")
    seen: dict[str, Any] = json.loads(html.unescape(done.stdout.split("<pre>SEEN")[1].split("SEEN</pre>")[0]))
    if picture is not None:
        _chromium(folder, frame, max(width, 500), height, f"--screenshot={picture}")
    return Seen([line for line in done.stderr.splitlines() if "CONSOLE" in line], **seen)


def _chromium(folder: Path, frame: Path, width: int, height: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    # As root, in a container, there is neither a sandbox nor a large /dev/shm.
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    command += ["--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"]
    command += ["--virtual-time-budget=2000", *arguments, frame.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
