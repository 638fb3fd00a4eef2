"""Give the project another name, in code, commands and docs. Run: python scripts/rename.py NAME

The script renames the package's folder and replaces the old name in every file that git tracks,
except in LICENSE, which names the authors, and in CHANGELOG.md. It refuses a tree with uncommitted
changes, so that `git checkout .` and `git clean` undo it.
"""

import argparse
import importlib.util
import keyword
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

KEPT = {"LICENSE", "CHANGELOG.md"}


def rename(project: Path, new: str) -> list[str]:
    """Rename the project in a folder; returns the files that changed, by their new paths.

    Raises SystemExit with one line if the name or the folder cannot be used.
    """
    with (project / "pyproject.toml").open("rb") as file:
        old: str = tomllib.load(file)["project"]["name"]
    package, new_package = old.replace("-", "_"), new.replace("-", "_")
    _refuse_name(new, new_package)
    tracked = _git(project, "ls-files", "-z").split("\0")[:-1]
    if _git(project, "status", "--porcelain"):
        sys.exit("rename: there are changes that are not committed; commit or stash them first")

    (project / "src" / package).rename(project / "src" / new_package)
    for leftover in (project / "src").glob(f"{package}.egg-info"):
        shutil.rmtree(leftover)
    changed = []
    for name in tracked:
        path = project / re.sub(rf"^src/{package}/", f"src/{new_package}/", name)
        if name in KEPT or path.is_symlink():
            continue
        content = path.read_bytes()
        renamed = content.replace(package.encode(), new_package.encode())
        renamed = renamed.replace(old.encode(), new.encode())
        if b"\0" not in content and renamed != content:
            path.write_bytes(renamed)
            changed.append(str(path.relative_to(project)))
    return changed


def _refuse_name(new: str, package: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", new):
        sys.exit(f"rename: {new!r} must be lower-case words joined by hyphens, as in leaf-lstm")
    if keyword.iskeyword(package) or importlib.util.find_spec(package):
        sys.exit(f"rename: Python has a {package} already; take another name")


def _git(project: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=project, check=True, capture_output=True, text=True
    )
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="the new name of the command, such as leaf-lstm")
    changed = rename(Path(__file__).resolve().parents[1], parser.parse_args().name)
    print(f"{len(changed)} files renamed or changed. Now: make env && . .venv/bin/activate &&")
    print("  ruff check --fix --ignore E501 && ruff format && make docs")
    print("Lines that are too long now are to be broken by hand: `make check` lists them.")
    print("Then run `make repro`, which makes the results again: docs/template.md")


if __name__ == "__main__":
    main()
