"""What MLflow shows of a training."""

from pathlib import Path

import yaml
from tracked import about

from mnist_lstm.tracking.view import View, tags_of


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
