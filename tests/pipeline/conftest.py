import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zygote
from trainings import uninterrupted
from workspace import Workspace

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.pipeline)
    # the slowest tests: if they started last, the other test processes would wait for them
    items.sort(key=lambda item: HERE not in item.path.parents)


@contextmanager
def shared(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A folder that all test processes share. The first process that needs it makes it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of this process is in the one of all
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield base / name


@pytest.fixture(scope="session", autouse=True)
def _zygote(tmp_path_factory: pytest.TempPathFactory) -> None:
    with shared(tmp_path_factory, "zygote") as folder:
        zygote.start(folder)


@pytest.fixture(scope="session")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose pipeline has run, with its results committed. Tests must not change it."""
    with shared(tmp_path_factory, "baseline") as folder:
        workspace = Workspace(folder)
        if not (folder / "printed.txt").is_file():
            Workspace.create(folder)
            with workspace.start("dvc", "repro") as process:  # as users do, warnings and all
                printed, _ = process.communicate()
            assert process.returncode == 0, printed
            workspace.git("add", "dvc.lock", "results")
            workspace.git("commit", "--quiet", "--message", "results")
            (folder / "printed.txt").write_text(printed)
    return workspace


@pytest.fixture(scope="session")
def whole(baseline: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with an undisturbed training. Tests must not change it."""
    with shared(tmp_path_factory, "whole") as folder:
        return Workspace(folder) if folder.exists() else uninterrupted(baseline, folder)


@pytest.fixture(scope="session")
def sweep(baseline: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A clone that had run nothing before, in which a sweep ran through DVC's queue.

    Then the workspace's recipe, which is one of the four, ran as the experiment `again`; its result
    came out of DVC's cache. Tests must not change this clone.
    """
    with shared(tmp_path_factory, "sweep") as folder:
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
