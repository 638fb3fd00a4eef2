"""What only the moment knows of a run: commit, code that differs from it, experiment, versions."""

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

# what the results are made from, beside the data and params.yaml
CODE = ("src", "dvc.yaml", "pyproject.toml", "requirements.lock")


@dataclass(frozen=True)
class Provenance:
    """`patch` turns the commit's code into the code that ran; empty where that is the commit's.

    `commit` is None outside of git; the two DVC fields are None outside of `dvc exp run`.
    """

    commit: str | None
    patch: str
    dvc_experiment: str | None
    dvc_baseline: str | None


def observe(folder: Path) -> Provenance:
    """Look around in a working tree: git and the environment."""
    return Provenance(
        commit=_git(folder, "rev-parse", "--verify", "--quiet", "HEAD").strip() or None,
        patch=_patch(folder),
        dvc_experiment=os.environ.get("DVC_EXP_NAME"),
        dvc_baseline=os.environ.get("DVC_EXP_BASELINE_REV"),
    )


def versions(*packages: str) -> dict[str, str]:
    """The versions of Python and of installed packages."""
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def _patch(folder: Path) -> str:
    """What `git apply` needs: changes of tracked code, and files of code that git does not know."""
    changes = _git(folder, "diff", "--binary", "HEAD", "--", *CODE)
    unknown = _git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", *CODE)
    added = [
        _git(folder, "diff", "--binary", "--no-index", "--", os.devnull, name)
        for name in unknown.split("\0")
        if name
    ]
    return "".join([changes, *added])


def _git(folder: Path, *arguments: str) -> str:
    """What git prints; nothing outside of a repository, before a first commit, or without git."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, encoding="utf-8", check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout
