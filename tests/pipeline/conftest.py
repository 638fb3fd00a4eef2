import fcntl
import os
import shutil
from pathlib import Path

import pytest
from workspace import Workspace

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.pipeline)


@pytest.fixture(scope="session")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose pipeline has run, its results committed. To look at, not to change.

    Processes that run tests side by side share it: the first one makes it, the others wait.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # that of this process is in the one of all
    workspace = Workspace(shared / "baseline")
    with (shared / "baseline.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (workspace.folder / "printed.txt").is_file():
            Workspace.create(workspace.folder)
            printed = workspace.dvc("repro")
            workspace.git("add", "dvc.lock", "results")
            workspace.git("commit", "--quiet", "--message", "results")
            (workspace.folder / "printed.txt").write_text(printed)
    return workspace


@pytest.fixture
def clone(baseline: Workspace, tmp_path: Path) -> Workspace:
    """A fresh clone of it: no data, no cache, no store."""
    return baseline.clone(tmp_path / "clone")


@pytest.fixture
def workspace(clone: Workspace, baseline: Workspace) -> Workspace:
    """A clone with DVC's cache and the data: nothing in it has to run."""
    shutil.copytree(baseline.folder / ".dvc" / "cache", clone.folder / ".dvc" / "cache")
    clone.dvc("checkout", "--quiet")
    return clone
