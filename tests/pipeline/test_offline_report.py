"""The page that `mnist-lstm report` writes about a pipeline that has run."""

import hashlib
import re
from pathlib import Path

import pytest
from browser import WATCH, asked_for, needs_chromium, opened
from workspace import Workspace

from mnist_lstm.cli import main

METRICS = "results/evaluate/metrics.json"
SAME = "The results in the workspace are the committed results."
HEADINGS = [
    "Metrics",
    "Curves",
    "Confusion matrix",
    "Accuracy after each row",
    "The answer after each row",
    "The most confident mistakes",
    "Recipe",
]


@pytest.fixture
def page(baseline: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(baseline.folder)
    assert main(["report", "--out", str(tmp_path / "report.html")]) == 0
    return tmp_path / "report.html"


def cells(text: str, title: str) -> list[str]:
    (row,) = re.findall(rf"<tr><th scope=\"row\">{title}</th>(.*?)</tr>", text)
    return re.findall("<td>(.*?)</td>", row)


def test_report_has_the_metrics_of_workspace_and_head(page: Path, baseline: Workspace) -> None:
    text = page.read_text()
    accuracy = f"{baseline.json('results/evaluate/metrics.json')['test']['accuracy']:.2%}"
    assert cells(text, "test accuracy") == [accuracy, accuracy, "0"]
    assert SAME in text
    assert re.findall("<h2>(.*?)</h2>", text) == HEADINGS
    assert "published" not in text  # its images are digits
    assert text.count("data:image/png;base64,") == 5
    recipe = text[text.index("<h2>Recipe") :]
    assert cells(recipe, "model.hidden_size") == ["32"]


def test_differences_are_workspace_minus_committed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workspace has the results of another experiment, as after `dvc exp apply`."""
    committed = workspace.json(METRICS)["test"]["accuracy"]
    metrics = workspace.folder / METRICS
    before = hashlib.md5(metrics.read_bytes()).hexdigest()
    metrics.write_text(metrics.read_text().replace(str(committed), "0.5"))
    lock = workspace.folder / "dvc.lock"
    after = hashlib.md5(metrics.read_bytes()).hexdigest()
    lock.write_text(lock.read_text().replace(before, after))
    record = workspace.folder / "results" / "evaluate" / "run.json"
    content = record.read_bytes()
    record.write_bytes(content + b"\n")  # of another evaluation, as its MD5 tells
    old, new = (hashlib.md5(each).hexdigest() for each in (content, content + b"\n"))
    lock.write_text(lock.read_text().replace(old, new))
    monkeypatch.chdir(workspace.folder)
    assert main(["report"]) == 0
    text = (workspace.folder / "report.html").read_text()
    difference = f"{100 * (0.5 - committed):+.2f}".replace("-", "−")
    assert cells(text, "test accuracy") == ["50.00%", f"{committed:.2%}", difference]
    assert SAME not in text
    assert workspace.git("status", "--porcelain", "report.html") == ""  # git ignores it


def test_in_a_clone_everything_is_drawn_that_needs_no_images(
    clone: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(clone.folder)
    assert main(["report"]) == 0
    assert capsys.readouterr().out == "report.html\n"
    text = (clone.folder / "report.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", text) == HEADINGS
    assert text.count("data:image/png;base64,") == 3
    assert "`dvc repro` draws it" in text


@needs_chromium
def test_report_opens_without_a_network_and_loads_nothing(page: Path) -> None:
    text, removed = re.subn("<meta http-equiv=.*", "", page.read_text())  # it would hide requests
    assert removed == 1
    watched = text.replace("</body>", f"{WATCH}</body>")
    done = opened(watched, page.with_name("watched.html"))
    assert all(address.startswith("data:") for address in asked_for(done.stdout))
    (widths,) = re.findall(r'widths="(.*?)"', done.stdout)
    assert [int(width) for width in widths.split()] == [1600, 1600, 1600, 1600, 1600, 0]
