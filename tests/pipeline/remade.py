"""Make runs again with `mnist-lstm reproduce`, which must leave the project as it was."""

import json
from pathlib import Path
from typing import Any

from workspace import Workspace

from mnist_lstm.files import sha256

SCRATCH = "mnist-lstm-reproduce-*"  # torch leaves an empty folder of its own beside them


def reproduce(
    workspace: Workspace, *arguments: str, code: int = 0, **environment: str
) -> dict[str, Any]:
    """Make a run again; the command must end with this exit code. Returns its JSON."""
    before, stores = workspace.git("status", "--porcelain"), state_of(workspace)
    done = workspace.start_warm("mnist-lstm", "reproduce", "--json", *arguments, **environment)
    printed, _ = done.communicate()
    assert done.returncode == code, printed
    assert nothing_is_left(workspace)
    assert (workspace.git("status", "--porcelain"), state_of(workspace)) == (before, stores)
    told: dict[str, Any] = json.loads(printed[printed.index("{\n") :])  # stderr comes before it
    return told


def state_of(workspace: Workspace) -> dict[Path, object]:
    """All that is in the project, and in which state, but for git's files and DVC's temporary ones.

    The store is compared by its content, other files by their size and time of change.
    """
    own = [workspace.folder / name for name in (".git", ".dvc/tmp")]
    found = dict[Path, object]()
    for path in workspace.folder.rglob("*"):
        if not any(path.is_relative_to(each) for each in own):
            about = path.stat()
            found[path] = (about.st_size, about.st_mtime_ns) if path.is_file() else "a folder"
    if (store := workspace.folder / "mlflow.db").exists():
        found[store] = sha256(store)
    return found


def nothing_is_left(workspace: Workspace) -> bool:
    return workspace.git("worktree", "list", "--porcelain").count("worktree ") == 1
