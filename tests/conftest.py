"""Settings for every test: a seed, one thread, and none of the user's own settings."""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis.configuration import set_hypothesis_home_dir

if TYPE_CHECKING:
    from mnist_lstm.tracking.store import Store

# else each process that the tests start would compile what it imports: half a minute with MLflow
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
torch.set_num_threads(1)  # for models this small, a second one costs more than it brings


def pytest_configure(config: pytest.Config) -> None:
    """By default, Hypothesis would write its database into the project."""
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    set_hypothesis_home_dir(folder.name)


@pytest.fixture(scope="session")
def fresh_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without an experiment, made once because its tables take seconds."""
    import mlflow  # seconds, too

    folder = tmp_path_factory.mktemp("store")
    mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
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


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    # set by mnist_lstm.tracking.credentials: noted first, so that they end with the test
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
