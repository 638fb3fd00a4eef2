"""The package, its command and the changelog have the version of pyproject.toml."""

import re
import subprocess
import sys
import tomllib

import pytest
from samples import PROJECT

import mnist_lstm
from mnist_lstm.cli import main

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
VERSION = PYPROJECT["project"]["version"]
CHANGELOG = (PROJECT / "CHANGELOG.md").read_text()


def test_the_package_has_the_version_of_pyproject() -> None:
    assert mnist_lstm.__version__ == VERSION, "`make env` installs the package anew"


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"mnist-lstm {VERSION}\n"


def test_no_stage_depends_on_the_number() -> None:
    """Otherwise, a release would make all trainings invalid."""
    assert not [path for path in (PROJECT / "src").rglob("*.py") if VERSION in path.read_text()]


def test_the_changelog_begins_with_it() -> None:
    headings = re.findall(r"(?m)^## \[(\d+\.\d+\.\d+)\] - (unreleased|\d{4}-\d\d-\d\d)$", CHANGELOG)
    assert headings[0][0] == VERSION
    numbers = [tuple(map(int, number.split("."))) for number, _ in headings]
    assert numbers == sorted(set(numbers), reverse=True)
    assert all(date != "unreleased" for _, date in headings[1:])
    assert len(headings) == CHANGELOG.count("\n## ")


def test_the_types_are_packaged() -> None:
    assert "py.typed" in PYPROJECT["tool"]["setuptools"]["package-data"]["mnist_lstm"]
    assert (PROJECT / "src" / "mnist_lstm" / "py.typed").is_file()


def test_without_metadata_only_the_version_is_missing() -> None:
    """The package can also be imported from src/ without being installed."""
    code = "import mnist_lstm.files; from mnist_lstm import UserError, __file__; print(__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(PROJECT / "src")},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(PROJECT / "src" / "mnist_lstm" / "__init__.py")
