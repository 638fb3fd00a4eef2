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
    """A workspace whose pipeline has run, its results committed. To look at, not to change."""
    workspace = Workspace.create(tmp_path_factory.mktemp("baseline"))
    (workspace.folder / "printed.txt").write_text(workspace.dvc("repro"))
    workspace.git("add", "dvc.lock", "results")
    workspace.git("commit", "--quiet", "--message", "results")
    return workspace


@pytest.fixture
def clone(baseline: Workspace, tmp_path: Path) -> Workspace:
    """A fresh clone of it: no data, no cache, no store."""
    return baseline.clone(tmp_path / "clone")


@pytest.fixture
def workspace(clone: Workspace, baseline: Workspace) -> Workspace:
    """A clone with DVC's cache and the data: nothing in it has to run."""
    import shutil

    shutil.copytree(baseline.folder / ".dvc" / "cache", clone.folder / ".dvc" / "cache")
    clone.dvc("checkout", "--quiet")
    return clone
