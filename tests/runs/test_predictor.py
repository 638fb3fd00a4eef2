"""The model that predict takes."""

import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo
from samples import PROJECT, small_model

from mnist_lstm.runs import predictor
from mnist_lstm.runs.history import History


@pytest.mark.parametrize(
    "settings", [{}, {"window": 3}, {"reads": "columns", "num_rows": 8, "window": 5}], ids=str
)
def test_a_file_of_no_run_is_assumed_to_take_square_images(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(PROJECT / name, tmp_path)
    Repo.init(str(tmp_path), no_scm=True).close()
    small_model(**settings).save(tmp_path / "model.safetensors")
    chosen = predictor.of_file(History(tmp_path), tmp_path / "model.safetensors")
    assert chosen.image == (8, 8)
    assert "no run here has it, so it is assumed to take images like MNIST's, 8×8" in chosen.source
