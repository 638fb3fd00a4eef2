"""`dvc plots` shows everything about a pipeline that has run, without a network."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from browser import OUTSIDE, WATCH, asked_for, needs_chromium, opened
from samples import PROJECT
from workspace import Workspace

PICTURES = {"batch", "belief", "confusion", "curve", "mistakes", "reading"}
CHARTS = 5  # accuracy, loss, recall by class, accuracy by rows, confusion


class Page(HTMLParser):
    """The files that a page loads when it opens, and the code in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.requests: list[str] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_script = tag == "script"
        self.requests += [value for name, value in attrs if value and name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)


@pytest.fixture(scope="module")
def page(baseline: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page that `dvc plots show` makes."""
    folder = tmp_path_factory.mktemp("plots")
    printed = baseline.dvc("plots", "show", "--out", str(folder))
    (address,) = printed.split()  # nothing else: no warning
    assert Path(unquote(urlparse(address).path)) == folder / "index.html"
    return folder / "index.html"


def test_every_picture_is_a_png_and_a_dvc_output(baseline: Workspace) -> None:
    outs = {out["path"]: out["size"] for out in baseline.lock()["evaluate"]["outs"]}
    for name in PICTURES:
        content = (baseline.folder / "results" / "evaluate" / f"{name}.png").read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert 20_000 < outs[f"results/evaluate/{name}.png"] == len(content) < 400_000


def test_the_page_is_complete_and_loads_nothing_else(page: Path) -> None:
    found = Page(page)
    assert len([code for code in found.scripts if "vegaEmbed('#" in code]) == CHARTS
    assert {Path(source).stem.split("_")[-1] for source in found.requests} == PICTURES
    for source in found.requests:
        assert "://" not in source
        assert (page.parent / source).is_file()


@needs_chromium
def test_the_page_draws_its_charts_with_the_network_off(page: Path) -> None:
    done = opened(page.read_text() + WATCH, page.with_name("watched.html"))
    assert "Uncaught" not in done.stderr
    assert '"WARN ' not in done.stderr  # Vega would warn here about data that it drops
    assert len(re.findall(r"<svg [^>]*class=\"marks\"", done.stdout)) == CHARTS
    marks = re.findall(r'<g class="mark-(\w+) role-mark [^"]*"[^>]*>(.*?)</g>', done.stdout)
    drawn = [kind for kind, content in marks if "<path" in content or "<text" in content]
    assert drawn.count("line") == 5  # three accuracies, the loss, the rows
    assert drawn.count("symbol") == 1  # the classes
    assert drawn.count("rect") == drawn.count("text") == 1  # the confusion's cells
    assert all(address.startswith("file://") for address in asked_for(done.stdout))
    (widths,) = re.findall(r'widths="(.*?)"', done.stdout)
    *pictures, outside = map(int, widths.split())
    assert (len(pictures), min(pictures) > 0, outside) == (len(PICTURES), True, 0)


# and it tells what was refused
ATTACK = f"""
<script>
const refused = [];
document.addEventListener("securitypolicyviolation", (event) => {{
  refused.push(event.effectiveDirective);
  document.body.setAttribute("refused", refused.sort().join(" "));
}});
</script>
<script src="{OUTSIDE}"></script><link rel="stylesheet" href="{OUTSIDE}"><img src="{OUTSIDE}">
<iframe src="{OUTSIDE}"></iframe><object data="{OUTSIDE}"></object>
<script>fetch("{OUTSIDE}").catch(() => 0);</script>
"""


@needs_chromium
def test_what_gets_into_the_page_reaches_nothing_outside(tmp_path: Path) -> None:
    template = (PROJECT / ".dvc" / "plots" / "page.html").read_text()
    page = template.replace("{refresh_tag}", "").replace("{plot_divs}", ATTACK)
    done = opened(page, tmp_path / "page.html")
    (refused,) = re.findall(r'<body refused="(.*?)"', done.stdout)
    kinds = "connect-src frame-src img-src object-src script-src-elem style-src-elem"
    assert refused == kinds
