from pathlib import Path

import pytest

from mnist_lstm import UserError
from mnist_lstm.learning.fit import Evaluation
from mnist_lstm.pipeline.result_files import (
    Training,
    read_json,
    read_rows,
    row,
    write_json,
    write_rows,
)
from mnist_lstm.pipeline.timing import Timing

MEASURED = Evaluation(50, 0, 1 / 3, 2 / 3, 1.0, 1e-17)
TIMING = Timing(50, "2026-01-02T03:04:05.678+00:00", 1.5, 200.0, 99.9, None, None)


def test_a_training_comes_back_to_the_last_digit(tmp_path: Path) -> None:
    training = Training({"training_id": "a", "dirty": False}, [row(MEASURED)], [row(TIMING)])
    training.write(tmp_path)
    assert Training.read(tmp_path) == training
    assert training.step == 50


def test_the_curve_has_the_columns_it_is_known_for(tmp_path: Path) -> None:
    write_rows(tmp_path / "curve.csv", [row(MEASURED)])
    assert (tmp_path / "curve.csv").read_text() == (
        "step,epoch,train_accuracy,validation_accuracy,test_accuracy,train_loss\n"
        "50,0,0.3333333333333333,0.6666666666666666,1.0,1e-17\n"
    )


def test_a_training_that_has_not_measured_stands_at_nothing() -> None:
    assert Training({}).step == 0


def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    for read in (read_json, read_rows):
        with pytest.raises(UserError, match=r"gone: no such file; `dvc repro` makes it"):
            read(tmp_path / "gone")
    write_json(tmp_path / "torn", {"a": 1})
    (tmp_path / "torn").write_text((tmp_path / "torn").read_text()[:-4])
    with pytest.raises(UserError, match="torn: not readable as JSON"):
        read_json(tmp_path / "torn")
