import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from trainings import uninterrupted
from workspace import Workspace

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.pipeline)


Shared = Callable[[str], AbstractContextManager[Path]]


@pytest.fixture(scope="session", autouse=True)
def _warm(warm_programs: Path) -> None:
    """All tests here start programs that need no time for imports."""


@pytest.fixture(scope="session")
def baseline(shared: Shared) -> Workspace:
    """A workspace whose pipeline has run, with its results committed. Tests must not change it."""
    with shared("baseline") as folder:
        workspace = Workspace(folder)
        if not (folder / "printed.txt").is_file():
            Workspace.create(folder)
            # as for users, warnings and all, but for train: test_kills.py has such a training
            printed = reproduced_as_for_users(workspace, "preprocess")
            printed, _, _ = printed.partition("\nTo track the changes with git")  # a hint, repeated
            printed += workspace.dvc("repro", "train")
            printed += reproduced_as_for_users(workspace, "evaluate")
            workspace.git("add", "dvc.lock", "results")
            workspace.git("commit", "--quiet", "--message", "results")
            (folder / "printed.txt").write_text(printed)
    return workspace


def reproduced_as_for_users(workspace: Workspace, stage: str) -> str:
    """Run the installed dvc up to a stage, in processes of their own; returns what they print."""
    with workspace.start("dvc", "repro", stage) as process:
        printed = process.communicate()[0]
    assert process.returncode == 0, printed
    return printed


@pytest.fixture(scope="session")
def whole(baseline: Workspace, shared: Shared) -> Workspace:
    """A workspace with an undisturbed training. Tests must not change it."""
    with shared("whole") as folder:
        return Workspace(folder) if folder.exists() else uninterrupted(baseline, folder)


@pytest.fixture(scope="session")
def sweep(baseline: Workspace, shared: Shared) -> Workspace:
    """A clone that had run nothing before, in which a sweep ran through DVC's queue.

    Then the workspace's recipe, which is one of the four, ran as the experiment `again`; its result
    came out of DVC's cache. Tests must not change this clone.
    """
    with shared("sweep") as folder:
        workspace = Workspace(folder)
        if not (folder / "again.txt").is_file():
            baseline.clone(folder)
            workspace.git("remote", "remove", "origin")  # which has results
            workspace.git("reset", "--quiet", "--hard", "HEAD~1")
            workspace.run_the_sweep()
            printed = workspace.dvc("exp", "run", "--name", "again")
            (folder / "again.txt").write_text(printed)
    return workspace


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system's temporary folder for this test only."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def clone(baseline: Workspace, tmp_path: Path) -> Workspace:
    """A fresh clone of the workspace: no data, no cache, no MLflow store."""
    return baseline.clone(tmp_path / "clone")


@pytest.fixture
def workspace(clone: Workspace, baseline: Workspace, fresh_store: Path) -> Workspace:
    """A clone with DVC's cache, the data and an empty MLflow store: no stage has to run."""
    shutil.copy(fresh_store, clone.folder)
    for name in (".dvc/cache", "data", "results"):
        shutil.copytree(baseline.folder / name, clone.folder / name, dirs_exist_ok=True)
    return clone
