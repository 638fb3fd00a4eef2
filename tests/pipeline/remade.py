"""Make runs again with `mnist-lstm reproduce`, which must leave the project as it was."""

import json
from pathlib import Path
from typing import Any

from workspace import Workspace

SCRATCH = "mnist-lstm-reproduce-*"  # torch leaves an empty folder of its own beside them


def reproduce(
    workspace: Workspace, *arguments: str, code: int = 0, **environment: str
) -> dict[str, Any]:
    """Make a run again; the command must end with this exit code. Returns its JSON."""
    before, stores = workspace.git("status", "--porcelain"), made_here(workspace)
    done = workspace.start_warm("mnist-lstm", "reproduce", "--json", *arguments, **environment)
    printed, _ = done.communicate()
    assert done.returncode == code, printed
    assert nothing_is_left(workspace)
    assert (workspace.git("status", "--porcelain"), made_here(workspace)) == (before, stores)
    told: dict[str, Any] = json.loads(printed[printed.index("{\n") :])  # stderr comes before it
    return told


def made_here(workspace: Workspace) -> set[Path]:
    """Everything that a pipeline would change if it ran in the project itself."""
    folders = (".checkpoints", "mlruns", ".dvc/cache", "data", "results")
    return {path for name in folders for path in (workspace.folder / name).rglob("*")}


def nothing_is_left(workspace: Workspace) -> bool:
    return workspace.git("worktree", "list", "--porcelain").count("worktree ") == 1
