"""scripts/rename.py gives the project another name and leaves no trace of the old name."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from samples import PROJECT

NEW = "renamed-by-test"
PROGRAMS = Path(sys.executable).parent
PAGE = (PROJECT / "docs" / "template.md").read_text()


def _run(folder: Path, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=os.environ | environment
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A renamed copy of the working tree, in its own repository."""
    return _renamed(tmp_path_factory.mktemp("renamed"), NEW)


def _renamed(folder: Path, new: str) -> Path:
    listed = _run(PROJECT, "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in listed.stdout.split("\0")[:-1]:
        if (source := PROJECT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name, follow_symlinks=False)
    identity = ("-c", "user.name=A. Tester", "-c", "user.email=tester@example.org")
    for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "-m", "all")):
        _run(folder, "git", *identity, *words).check_returncode()
    done = _run(folder, sys.executable, "scripts/rename.py", new)
    assert done.returncode == 0, done.stderr
    return folder


def _tidied(folder: Path) -> str:
    """Follow the page up to `make docs`; returns what `ruff check` then finds."""
    (line,) = re.findall(r"(?m)^    (ruff check --fix .*?) +#", PAGE)
    assert line in (PROJECT / "scripts" / "rename.py").read_text()
    done = _run(folder, "bash", "-c", line, PATH=f"{PROGRAMS}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stdout
    return _run(folder, str(PROGRAMS / "ruff"), "check", "--output-format", "concise").stdout


def test_no_trace_of_the_old_name_remains(copy: Path) -> None:
    left = [
        path.relative_to(copy)
        for path in copy.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(copy).parts[:1]
        for name in (b"mnist-lstm", b"mnist_lstm")
        if name in path.read_bytes() or name in str(path.relative_to(copy)).encode()
    ]
    assert {str(path) for path in left} <= {"LICENSE", "CHANGELOG.md"}
    assert not (copy / "src" / "mnist_lstm").exists()


def test_its_code_is_code_and_is_imported_under_the_new_name(copy: Path) -> None:
    for path in (copy / "src").rglob("*.py"):
        ast.parse(path.read_text())
    code = "import renamed_by_test.learning.model as it; print(it.__file__)"
    done = _run(copy, sys.executable, "-c", code, PYTHONPATH=str(copy / "src"))
    assert done.stdout.strip() == str(copy / "src/renamed_by_test/learning/model.py"), done.stderr


def test_the_files_that_dvc_reads_name_files_that_are_there(copy: Path) -> None:
    stages = yaml.safe_load((copy / "dvc.yaml").read_text())["stages"]
    code = {dep for stage in stages.values() for dep in stage["deps"] if dep.endswith(".py")}
    assert "src/renamed_by_test/learning/model.py" in code
    assert all((copy / dep).is_file() for dep in code)
    lock = yaml.safe_load((copy / "dvc.lock").read_text())["stages"]
    assert lock.keys() == stages.keys()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Leaf_Reader", "must be lower-case words joined by hyphens"),
        ("torch", "Python has a torch already"),
        ("class", "Python has a class already"),
        ("oak-reader", "there are changes that are not committed"),
    ],
)
def test_unusable_names_and_folders_are_refused_and_nothing_changes(
    copy: Path, name: str, reason: str
) -> None:
    before = _run(copy, "git", "status", "--porcelain").stdout
    done = _run(copy, sys.executable, "scripts/rename.py", name)
    assert done.returncode == 1
    assert reason in done.stderr
    assert _run(copy, "git", "status", "--porcelain").stdout == before


def test_ruff_then_finds_only_lines_that_are_too_long_and_none_of_the_example(
    copy: Path, tmp_path: Path
) -> None:
    *found, _ = _tidied(copy).splitlines()
    assert {line.split()[1] for line in found} == {"E501"}
    (example,) = re.findall(r"(?m)^    python scripts/rename.py (\S+)$", PAGE)
    assert _tidied(_renamed(tmp_path, example)) == "All checks passed!\n"
