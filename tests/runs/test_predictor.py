"""The model that predict takes."""

import shutil
from pathlib import Path

import pytest
import torch
from dvc.repo import Repo
from samples import PROJECT, small_model, write_lock
from tracked import leave_results

from mnist_lstm import UserError
from mnist_lstm.learning.model import infer
from mnist_lstm.pipeline.result_files import write_rows
from mnist_lstm.runs import predictor
from mnist_lstm.runs.history import History


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({}, 8),
        ({"window": 3}, 8),
        ({"reads": "columns", "num_rows": 8, "window": 5}, 8),
        ({"reads": "columns", "num_rows": 5}, 5),
        ({"reads": "both", "num_rows": 11}, 11),
    ],
    ids=str,
)
def test_a_file_of_no_run_is_assumed_to_take_square_images_or_those_that_it_names(
    tmp_path: Path, settings: dict[str, object], rows: int
) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(PROJECT / name, tmp_path)
    Repo.init(str(tmp_path), no_scm=True).close()
    small_model(**settings).save(tmp_path / "model.safetensors")
    chosen = predictor.of_file(History(tmp_path), tmp_path / "model.safetensors")
    assert chosen.image == (rows, 8)
    assumed = f"no run here has it, so it is assumed to take images like MNIST's, {rows}×8"
    assert assumed in chosen.source
    assert infer(chosen.model, torch.zeros(2, rows, 8, dtype=torch.uint8), 2).shape == (2, 2)


def test_class_names_in_data_raw_are_read_only_if_the_evaluation_has_none(tmp_path: Path) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(PROJECT / name, tmp_path)
    Repo.init(str(tmp_path), no_scm=True).close()
    table = leave_results(tmp_path / "results") / "evaluate" / "classes.csv"
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "classes.txt").write_bytes(b"up\n\xff\n")
    write_rows(table, [{"class": "rises"}, {"class": "falls"}])
    write_lock(tmp_path)
    assert predictor.of_project(History(tmp_path)).classes == ("rises", "falls")
    table.unlink()
    write_lock(tmp_path)
    with pytest.raises(
        UserError, match=r"classes.txt: not UTF-8 text \(.* at byte 3\); `dvc repro"
    ):
        predictor.of_project(History(tmp_path))
