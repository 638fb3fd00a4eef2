"""The README has the accuracy and pictures of the committed results, and its links work."""

import hashlib
import json
import re

import pytest
import yaml
from samples import PROJECT

README = (PROJECT / "README.md").read_text()
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


def test_the_accuracy_is_that_of_the_committed_run() -> None:
    (said,) = re.findall(r"run committed here reaches (\S+) %", README)
    metrics = json.loads((PROJECT / "results" / "evaluate" / "metrics.json").read_text())
    assert said == f"{metrics['test']['accuracy']:.2%}".removesuffix("%")


@pytest.mark.parametrize("name", ["curve.png", "belief.png"])
def test_a_picture_is_that_of_the_committed_run(name: str) -> None:
    lock = yaml.safe_load((PROJECT / "dvc.lock").read_text())["stages"]["evaluate"]
    md5 = {out["path"]: out["md5"] for out in lock["outs"]}[f"results/evaluate/{name}"]
    assert hashlib.md5((PROJECT / "docs" / name).read_bytes()).hexdigest() == md5


def test_it_has_pictures_and_fits_150_lines() -> None:
    pictures = re.findall(r"!\[.+\]\(docs/(\S+)\)", README)
    assert pictures == ["terminal.svg", "mlflow.png", "draw.png", "belief.png", "curve.png"]
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text())
    assert all((page.parent / link).exists() for link in links), links


def test_the_targets_of_make_are_there() -> None:
    targets = set(re.findall(r"(?m)^(\w+):", (PROJECT / "Makefile").read_text()))
    named = set(re.findall(r"(?:`|    )make (\w+)", README))
    assert {"repro", "test", "ui"} <= named <= targets
