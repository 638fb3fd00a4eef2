"""Open pages in headless Chromium, with the network off but for this machine."""

import base64
import json
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
ALONE = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
OUTSIDE = "https://outside.example/picture.png"
# lists the page's requests, with one request of its own, so that we see that the list works,
# and the width of its pictures
WATCH = f"""
<img src="{OUTSIDE}">
<script>
setTimeout(() => {{
  const asked = performance.getEntriesByType("resource").map((entry) => entry.name);
  document.body.setAttribute("asked", asked.join(" "));
  const widths = [...document.images].map((image) => image.naturalWidth);
  document.body.setAttribute("widths", widths.join(" "));
}}, 2000);
</script>
"""


def opened(text: str, page: Path) -> "subprocess.CompletedProcess[str]":
    """Open a page with this text; returns its document and what it wrote to the console.

    It is written to `page`, beside what it asks for.
    """
    assert CHROMIUM
    page.write_text(text)
    return subprocess.run(
        [
            *(CHROMIUM, *ALONE),
            f"--user-data-dir={page.with_suffix('.profile')}",
            "--enable-logging=stderr",  # with what the page writes to its console
            "--virtual-time-budget=5000",  # milliseconds, which pass at once when nothing is due
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )


def asked_for(document: str) -> list[str]:
    """The requests of a page with WATCH in it, without WATCH's own request."""
    (asked,) = re.findall(r'<body asked="(.*?)"', document)
    addresses = asked.split()
    addresses.remove(OUTSIDE)
    return addresses


PATIENCE = 120  # seconds for one answer of the browser, beside other work


@dataclass
class Tab:
    """A page that a test works in, by Chrome's DevTools protocol over a pair of pipes."""

    commands: int  # file descriptors
    answers: int
    session: str = ""
    number: int = 0
    unread: bytes = b""
    complaints: list[str] = field(default_factory=list)  # exceptions and what the policy refused
    requests: list[str] = field(default_factory=list)
    loaded: bool = False

    def send(self, method: str, **parameters: Any) -> Any:
        """Send a command, and return its result."""
        self.number += 1
        number = self.number
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.commands, data) :]
        while (answer := self._next()).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.unread:
            ready, _, _ = select.select([self.answers], [], [], deadline - time.monotonic())
            assert ready, "the browser does not answer"
            got = os.read(self.answers, 1 << 20)
            assert got, "the browser has ended"
            self.unread += got
        text, _, self.unread = self.unread.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        about = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(about["exceptionDetails"]))
            case "Log.entryAdded" if about["entry"]["level"] == "error":
                self.complaints.append(about["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(about["request"]["url"])
            case "Page.loadEventFired":
                self.loaded = True
        return message

    def open(self, page: Path | str, width: int = 1280, height: int = 900) -> None:
        """Open a file or an address in a window of this size, and wait until it is there."""
        self.session = ""  # until then, commands are to the browser
        self.complaints, self.requests, self.loaded = [], [], False
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for name in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{name}.enable")
        self.resize(width, height)
        self.send("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while not self.loaded:
            self._next()

    def resize(self, width: int, height: int) -> None:
        sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **sizes)
        self.send("Emulation.setScrollbarsHidden", hidden=True)

    def evaluate(self, code: str) -> Any:
        """The value of an expression in the page, as JSON has it."""
        done = self.send("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def drag(self, places: Sequence[tuple[float, float]], kind: str = "mouse") -> None:
        """Press a pointer, move it from place to place (pixels of the window), and let it go.

        `kind` is mouse, pen or touch.
        """
        for number, place in enumerate(places):
            self.point(kind, 1 if number else 0, *place)
        self.point(kind, 2, *places[-1])

    def point(self, kind: str, step: int, x: float, y: float) -> None:
        """Press (0), move (1) or let go (2)."""
        if kind == "touch":
            name = ("touchStart", "touchMove", "touchEnd")[step]
            points = [] if step == 2 else [{"x": x, "y": y}]
            self.send("Input.dispatchTouchEvent", type=name, touchPoints=points)
            return
        name = ("mousePressed", "mouseMoved", "mouseReleased")[step]
        event = {"type": name, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
        self.send("Input.dispatchMouseEvent", **event, pointerType=kind)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of the window, or of the whole page."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """A tab of a new browser, which ends with the block. Its profile is a folder."""
    assert CHROMIUM
    (reads, commands), (answers, writes) = os.pipe(), os.pipe()

    def connect() -> None:  # Chromium takes commands from 3 and answers to 4
        spare = [os.dup(fd) for fd in (reads, writes)]  # neither is overwritten by the other
        for taken, fd in zip(spare, (3, 4), strict=True):
            os.dup2(taken, fd)

    process = subprocess.Popen(
        [
            *(CHROMIUM, *ALONE),
            f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=False,  # the others are closed by the exec
        preexec_fn=connect,
    )
    os.close(reads)
    os.close(writes)
    found = Tab(commands, answers)
    try:
        yield found
        found.session = ""
        found.send("Browser.close")
        process.wait(timeout=30)
    finally:
        process.kill()
        process.wait()
        os.close(commands)
        os.close(answers)
