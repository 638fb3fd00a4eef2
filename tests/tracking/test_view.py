"""What MLflow shows of a training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tracked import about

from mnist_lstm.pipeline.params import with_values
from mnist_lstm.pipeline.result_files import SplitRecord
from mnist_lstm.tracking.view import View, description, tags_of


def test_tags_say_whose_run_it_is() -> None:
    record = about(user="ann", host="laptop", folder="/home/ann/project")
    tags = tags_of(record)
    assert (tags["user"], tags["host"], tags["folder"]) == ("ann", "laptop", "/home/ann/project")
    assert tags["mlflow.user"] == "ann"
    assert tags_of(about()).keys().isdisjoint({"user", "host", "folder", "mlflow.user"})


def test_params_yaml_has_the_parameters_of_training_and_evaluation(results: Path) -> None:
    params = yaml.safe_load(
        View.read(results / "train", [results / "evaluate"]).files["params.yaml"]
    )
    assert params == dict(about().params) | {"evaluate": {"batch_size": 10}}


def test_files_that_are_no_results_are_not_shown(results: Path) -> None:
    """An editor leaves some, and so does a stage that is killed."""
    before = View.read(results / "train", [results / "evaluate"]).files
    for name in (".ipynb_checkpoints", "notes"):
        (results / "evaluate" / name).mkdir()
    for name in (".DS_Store", ".metrics.json.x.draft"):
        (results / "evaluate" / name).touch()
    assert View.read(results / "train", [results / "evaluate"]).files == before


@pytest.mark.parametrize(
    ("model", "what"),
    [
        ({}, "A dropout LSTM (2 layers of 16 units, dropout 0.5) on drawn, a pixel row at a time."),
        ({"cell": "gru", "window": 1}, "A dropout GRU (2 layers of 16 units, dropout 0.5) on"),
        ({"window": 5}, "on drawn, five pixel rows at a time."),
        ({"reads": "columns"}, "on drawn, a pixel column at a time."),
        ({"reads": "both"}, "on drawn, a pixel row and a pixel column at a time."),
        ({"reads": "both", "window": 3}, "three pixel rows and three pixel columns at a time."),
    ],
)
def test_the_description_says_what_the_model_is_and_reads(model: dict[str, Any], what: str) -> None:
    params = with_values(about().params, {f"model.{key}": value for key, value in model.items()})
    record = replace(about(), params=params)
    data = {"train": SplitRecord("data/train", 10, "d" * 64)}
    assert what in description(replace(record, data=data))
