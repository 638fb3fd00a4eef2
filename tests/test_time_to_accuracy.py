"""The time to accuracy: what is timed, and what the docs say of it."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from samples import PROJECT, drawn

from benchmarks import time_to_accuracy, trainings
from mnist_lstm.learning import fit
from mnist_lstm.pipeline import params

CHANGES = {
    "fetch.dataset": "digits",
    "preprocess.validation_size": 20,
    "model.hidden_size": 8,
    "train.batch_size": 10,
    "train.steps": 6,
    "train.device": "cpu",
}


def test_the_evaluation_is_not_timed_and_the_weights_are_the_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {"validation_size": 20, "split_seed": None}
    for number, (split, images) in enumerate({"train": 60, "validation": 20, "test": 20}.items()):
        data = replace(drawn(images, number), dataset="digits", preprocess=about)
        data.save(tmp_path / f"{split}.safetensors")
    answers, clock = fit._answers, [0.0]

    def tick(seconds: float) -> float:
        clock[0] += seconds
        return clock[0]

    def evaluated(*arguments: object) -> object:
        tick(100)
        return answers(*arguments)

    monkeypatch.setattr(fit, "_answers", evaluated)
    monkeypatch.setattr(time_to_accuracy, "time", SimpleNamespace(perf_counter=lambda: tick(1)))
    row = time_to_accuracy.trained(torch.device("cpu"), CHANGES, tmp_path)
    assert float(row["seconds"]) == 1
    assert clock == [102]
    recipe = params.load(time_to_accuracy.RECIPE, {**CHANGES, "train.eval_every": 6})
    expected = trainings.train(trainings.Training("the recipe", recipe, tmp_path), shows=False)
    assert row["model_sha256"] == expected["model_sha256"]


@pytest.mark.parametrize(
    "file", sorted(time_to_accuracy.HERE.glob("time-to-accuracy-*.csv")), ids=lambda file: file.name
)
def test_the_accuracy_page_has_each_time_and_the_accuracy_is_reached(file: Path) -> None:
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row["seed"]) for row in rows] == list(time_to_accuracy.SEEDS)
    assert {int(row["steps"]) for row in rows} == {params.load(time_to_accuracy.RECIPE).train.steps}
    assert sum(float(row["test_accuracy"]) for row in rows) / len(rows) >= 0.99
    assert time_to_accuracy.summary(rows) in (PROJECT / "docs" / "accuracy.md").read_text()


def test_the_trainings_on_a_processor_gave_the_weights_of_the_recorded_results() -> None:
    with (time_to_accuracy.HERE / "time-to-accuracy-cpu.csv").open(newline="") as lines:
        timed = [row["model_sha256"] for row in csv.DictReader(lines)]
    results = PROJECT / "recipes" / "results" / "fast"
    assert timed == [
        json.loads((results / f"seed-{seed}.json").read_text())["model_sha256"]
        for seed in time_to_accuracy.SEEDS
    ]
