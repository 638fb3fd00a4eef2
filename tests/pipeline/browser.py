"""Open pages in headless Chromium, with the network off."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
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
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            "--host-resolver-rules=MAP * ~NOTFOUND",
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
