import shutil
from pathlib import Path

import pytest
from tracked import leave_results

from mnist_lstm.tracking.store import Store, open_store


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
