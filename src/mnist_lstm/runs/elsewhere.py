"""Runs that another person, machine or clone made: how to tell, and the command that brings them.

MLflow's tags of a run say who made it and where. They are those of its run.json.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path

from mnist_lstm import git
from mnist_lstm.pipeline.provenance import Origin


def is_elsewhere(tags: Mapping[str, str], root: Path, uri: str) -> bool:
    """Whether a run in the store `uri` was not made by the project in `root`.

    In the project's own file, every run is its own, even if the project was moved since. Earlier
    versions of the project did not record where a run was made: such a run is its own, too.
    """
    from mnist_lstm.tracking.store import uri_of_file  # seconds, with MLflow

    here, host, folder = Origin.here(root), tags.get("host"), tags.get("folder")
    is_own = uri == uri_of_file(root.resolve() / "mlflow.db")
    return not is_own and host is not None and (host, folder) != (here.host, here.folder)


def how_to_get(tags: Mapping[str, str], root: Path) -> str:
    """Who made a run, and the commands that bring its results."""
    experiment = tags.get("dvc_experiment")
    brings = (
        f"`dvc exp pull {shlex.quote(_remote(root))} {shlex.quote(experiment)}` brings them"
        if experiment
        else "`git pull` and then `dvc fetch --all-commits --run-cache` bring them"
    )
    return (
        f"made by {tags.get('user')} on {tags.get('host')}, and its results are not here: "
        f"{brings}, once they are pushed"
    )


def _remote(root: Path) -> str:
    """The name of the git remote: origin, if there is one of this name or none at all."""
    names = git.git(root, "remote").decode().split() if git.is_repository(root) else []
    return names[0] if names and "origin" not in names else "origin"
