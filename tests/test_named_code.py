"""Every file and function that CONTRIBUTING.md and the pages about the code name exists."""

import ast
import re
from pathlib import Path

import pytest
from imports import PACKAGE
from samples import PROJECT
from test_layout import ROOMS

PAGES = ("CONTRIBUTING.md", "docs/architecture.md", "docs/template.md")
# names from the examples of recipes: they exist only after somebody follows the recipe
EXAMPLES = {"commands/where.py", "src/summarize.py"}
# by those who follow docs/template.md
DELETED = {"tests/test_published_run.py", "tests/test_benchmark_reproduction.py"}
OTHERS = {"data/own", "data/raw", "data/published_curve.csv"}  # not modules of the room data
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
NAMED = re.compile(r"([a-z_]+/[a-z_]+?)(?:\.py)?(?:\.([A-Za-z_.]+?)(?:\(\))?)?")

FILE = re.compile(r"(src|tests|docs|scripts)/[\w/]+\.(py|md)")


def words(page: str) -> set[str]:
    """The texts in backticks on a page, without its code blocks."""
    text = re.sub(r"(?ms)^```.*?^```$", "", (PROJECT / page).read_text())
    return set(CODE.findall(text)) - EXAMPLES - DELETED - OTHERS


def defined(path: Path) -> set[str]:
    """The dotted names of the functions, classes, methods and constants of a module."""
    found = set[str]()
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.FunctionDef(name=name):
                found.add(name)
            case ast.ClassDef(name=name, body=body):
                found.add(name)
                found |= {f"{name}.{each.name}" for each in body if hasattr(each, "name")}
            case ast.Assign(targets=[ast.Name(id=name)]):
                found.add(name)
    return found


def mistakes(page: str) -> list[str]:
    found = []
    for word in words(page):
        room = word.partition("/")[0]
        if room in ROOMS and (match := NAMED.fullmatch(word)):
            path = PROJECT / PACKAGE / f"{match[1]}.py"
            if not path.is_file():
                found.append(f"{word}: no such module")
            elif match[2] and match[2] not in defined(path):
                found.append(f"{word}: not in that module")
        elif FILE.fullmatch(word) and not (PROJECT / word).is_file():
            found.append(f"{word}: no such file")
    return sorted(found)


@pytest.mark.parametrize("page", PAGES)
def test_everything_that_a_page_names_exists(page: str) -> None:
    assert mistakes(page) == []


def test_the_walks_name_functions() -> None:
    named = {word for word in words("docs/architecture.md") if word.endswith("()")}
    assert len(named) > 10
    assert {"learning/fit.fit()", "runs/resolve.find()", "pipeline/params.load()"} <= named


@pytest.mark.parametrize(
    ("word", "mistake"),
    [
        ("runs/nowhere", "no such module"),
        ("learning/fit.nothing()", "not in that module"),
        ("learning/model.RowLSTM.nothing()", "not in that module"),
        ("src/nothing.py", "no such file"),
    ],
)
def test_a_name_that_does_not_exist_is_reported(
    word: str, mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.words", lambda page: {word, "learning/fit.fit()"})
    assert mistakes("any") == [f"{word}: {mistake}"]


@pytest.mark.parametrize("text", ["row-lstm", "MNIST_MIRROR"])
def test_the_page_about_a_template_names_all_code_that_has_a_name_of_this_project(
    text: str,
) -> None:
    page = (PROJECT / "docs" / "template.md").read_text()
    (entry,) = re.findall(rf"(?ms)^- `{text}`,.*?(?=^- )", page)
    named = {
        word if word.startswith("src/") else f"{PACKAGE}/{word}.py"
        for word in CODE.findall(entry)
        if word.startswith("src/") or word.partition("/")[0] in ROOMS
    }
    code = [*(PROJECT / "src").rglob("*.py"), *(PROJECT / "scripts").iterdir()]
    assert named == {
        str(path.relative_to(PROJECT))
        for path in code
        if path.is_file() and text in path.read_text()
    }
