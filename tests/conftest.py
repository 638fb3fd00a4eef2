"""Settings for every test: a seed, one thread, and none of the user's own settings."""

import fcntl
import functools
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import exports
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

from mnist_lstm.pipeline.process import COLLECTED_EVERY

if TYPE_CHECKING:
    from mnist_lstm.tracking.store import Store

# else each process that the tests start would compile what it imports: half a minute with MLflow
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Python reads it as it starts, so that no fork of the zygote would have it
os.environ.pop("PYTHONPATH", None)
gc.set_threshold(10 * COLLECTED_EVERY)


def pytest_configure(config: pytest.Config) -> None:
    """Read no settings of the user's git and DVC, and leave nothing outside of the tests' folders.

    DVC makes a folder in /var/tmp for each repository, and Hypothesis a database in the project.
    """
    temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    config.add_cleanup(temporary.cleanup)
    folder = temporary.name
    Path(folder).chmod(0o755)  # some tests become another user
    set_hypothesis_home_dir(folder)
    if "PYTEST_XDIST_WORKER" not in os.environ:  # which has these from the process that started it
        names = ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR")
        os.environ |= {name: f"{folder}/{name}" for name in names}
        # after settings that are there: without a safe.directory, git may refuse the project
        count = int(os.environ.get("GIT_CONFIG_COUNT", "0"))
        settings = {"commit.gpgSign": "false", "core.hooksPath": os.devnull}
        for number, (name, value) in enumerate(settings.items(), count):
            os.environ[f"GIT_CONFIG_KEY_{number}"] = name
            os.environ[f"GIT_CONFIG_VALUE_{number}"] = value
        os.environ["GIT_CONFIG_COUNT"] = str(count + len(settings))


def pytest_collection_finish() -> None:
    """What is imported stays until the end: no collection of garbage looks at it again."""
    gc.freeze()


# The longest tests. They start first: if one started last, the other test processes would wait for
# it. The first one makes the baseline, which takes a while. Meanwhile another process has the tests
# on a server, which need no baseline; then the baseline is there for the team's.
LONGEST = ("test_champion.py", "test_mnist.py", "test_on_a_server.py", "test_team.py")
PIPELINE = Path(__file__).parent / "pipeline"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: PIPELINE not in item.path.parents)
    items.sort(key=lambda item: [*LONGEST, item.path.name].index(item.path.name))


@pytest.fixture(scope="session")
def shared(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], AbstractContextManager[Path]]:
    """Lends, by its name, a folder that all test processes share; one process at a time has it.

    The first process that needs the folder makes it.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of this process is in the one of all

    @contextmanager
    def lend(name: str) -> Iterator[Path]:
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield base / name

    return lend


@pytest.fixture(scope="session")
def warm_programs(shared: Callable[[str], AbstractContextManager[Path]]) -> Path:
    """The folder of programs that need no time for imports: tests/pipeline/zygote.py."""
    import zygote

    with shared("zygote") as folder:
        zygote.start(folder)
    return zygote.folder_of_programs()


@pytest.fixture(scope="session")
def fresh_store(shared: Callable[[str], AbstractContextManager[Path]]) -> Path:
    """An MLflow store without an experiment, made once because its tables take seconds."""
    with shared("store") as folder:
        if not (folder / "mlflow.db").is_file():
            import mlflow  # seconds, too

            folder.mkdir(exist_ok=True)
            draft = folder / "draft.db"
            mlflow.MlflowClient(f"sqlite:///{draft}").search_experiments()
            draft.replace(folder / "mlflow.db")
    return folder / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, fresh_store: Path) -> Path:
    """A folder with an empty MLflow store."""
    shutil.copy(fresh_store, tmp_path)
    return tmp_path


@pytest.fixture
def store(root: Path) -> "Store":
    from mnist_lstm.tracking.store import open_store  # imports MLflow

    return open_store(root)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder with results of train and evaluate."""
    from tracked import leave_results  # imports MLflow

    return leave_results(tmp_path / "results")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """For models this small, a second thread costs more than it brings."""
    import torch  # here, because the process that only hands out tests to others needs no torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _one_export_of_each_architecture(
    shared: Callable[[str], AbstractContextManager[Path]],
) -> Iterator[None]:
    """In forks of the zygote, too; not in processes of the installed programs."""
    import torch.export

    with shared(exports.FOLDER) as folder:  # of all test processes
        once = exports.exporting_once(torch.export.export, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.export, "export", once)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_look_at_the_schema() -> Iterator[None]:
    """To know its newest schema, MLflow loads dozens of migrations for each store."""
    from mlflow.store.db import utils

    once = functools.cache(utils._get_latest_schema_revision)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_get_latest_schema_revision", once)
        yield


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    # set by mnist_lstm.tracking.credentials: noted first, so that they end with the test
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
