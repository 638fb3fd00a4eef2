"""What MLflow shows of a training."""

from pathlib import Path

import yaml
from tracked import about

from mnist_lstm.tracking.view import View


def test_params_yaml_has_the_parameters_of_training_and_evaluation(results: Path) -> None:
    params = yaml.safe_load(
        View.read(results / "train", [results / "evaluate"]).files["params.yaml"]
    )
    assert params == dict(about().params) | {"evaluate": {"batch_size": 10}}
