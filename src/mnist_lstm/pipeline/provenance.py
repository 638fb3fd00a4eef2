"""Facts known only when a training starts: commit, patch, experiment, versions, user and host."""

import getpass
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from mnist_lstm import git

# the files that the results depend on, apart from the data and params.yaml
CODE = ("src", "dvc.yaml", "pyproject.toml", "requirements.lock")


@dataclass(frozen=True)
class Provenance:
    """Where the code comes from. `patch` turns the commit's code into the code that ran.

    `patch` is empty if both are equal. `commit` is None outside of git and before the first commit.
    The two DVC fields are None outside of `dvc exp run`.
    """

    commit: str | None
    patch: bytes
    dvc_experiment: str | None
    dvc_baseline: str | None


@dataclass(frozen=True)
class Origin:
    """Who does something, on which machine, in which clone of the project."""

    user: str
    host: str
    folder: str

    @staticmethod
    def here(root: Path) -> "Origin":
        """The origin of what is made now, in the project in `root`."""
        found = (getpass.getuser(), platform.node(), str(root.resolve()))
        return Origin(*("".join(c if c.isprintable() else "?" for c in text) for text in found))


def observe(folder: Path) -> Provenance:
    """Read the provenance of a working tree from git and from the environment variables.

    Raises GitError if git refuses to read the repository.
    """
    in_git = git.is_repository(folder)
    return Provenance(
        commit=git.head(folder) if in_git else None,
        patch=git.patch(folder, CODE) if in_git else b"",
        dvc_experiment=os.environ.get("DVC_EXP_NAME"),
        dvc_baseline=os.environ.get("DVC_EXP_BASELINE_REV"),
    )


def versions(*packages: str) -> dict[str, str]:
    """The versions of Python and of installed packages."""
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
