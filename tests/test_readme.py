"""The README has its pictures, and the links of all pages work."""

import re

import pytest
from samples import PROJECT

README = (PROJECT / "README.md").read_text()
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


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
