import shutil
from pathlib import Path

import mlflow
import pytest
from tracked import leave_results

from mnist_lstm.tracking.store import Store, open_store


@pytest.fixture(scope="session")
def fresh_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without an experiment: building its tables takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, fresh_store: Path) -> Path:
    shutil.copy(fresh_store, tmp_path)
    return tmp_path


@pytest.fixture
def store(root: Path) -> Store:
    return open_store(root)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return leave_results(tmp_path / "results")
