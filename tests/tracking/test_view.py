"""What MLflow is to show of a training."""

from pathlib import Path

import yaml
from tracked import about

from mnist_lstm.tracking.view import View, flat


def test_params_yaml_says_what_training_and_evaluation_were_given(results: Path) -> None:
    params = yaml.safe_load(
        View.read(results / "train", [results / "evaluate"]).files["params.yaml"]
    )
    assert params == about()["params"] | {"evaluate": {"batch_size": 10}}


def test_flat() -> None:
    assert flat({"a": 1, "b": {"c": 2, "d": {"e": 3}}}, "/") == {"a": 1, "b/c": 2, "b/d/e": 3}
