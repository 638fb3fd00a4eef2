"""The speed record: what is timed, and what the docs say of it."""

import csv
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from samples import PROJECT, drawn

from benchmarks import record, trainings
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
    answers, slept = fit._answers, []

    def slowly(*arguments: object) -> object:
        slept.append(time.sleep(0.5))
        return answers(*arguments)

    monkeypatch.setattr(fit, "_answers", slowly)
    begun = time.perf_counter()
    row = record.trained(torch.device("cpu"), CHANGES, tmp_path)
    assert len(slept) == 1
    assert 0 < float(row["seconds"]) <= time.perf_counter() - begun - 0.5
    recipe = params.load(record.RECIPE, {**CHANGES, "train.eval_every": 6})
    expected = trainings.train(trainings.Training("the recipe", recipe, tmp_path), shows=False)
    assert row["model_sha256"] == expected["model_sha256"]


@pytest.mark.parametrize(
    "file", sorted(record.HERE.glob("record-*.csv")), ids=lambda file: file.name
)
def test_the_accuracy_page_has_each_record_and_it_is_one(file: Path) -> None:
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row["seed"]) for row in rows] == list(record.SEEDS)
    assert {int(row["steps"]) for row in rows} == {params.load(record.RECIPE).train.steps}
    assert sum(float(row["test_accuracy"]) for row in rows) / len(rows) >= 0.99
    assert record.summary(rows) in (PROJECT / "docs" / "accuracy.md").read_text()


def test_the_record_on_a_processor_has_the_weights_of_the_recorded_results() -> None:
    with (record.HERE / "record-cpu.csv").open(newline="") as lines:
        timed = [row["model_sha256"] for row in csv.DictReader(lines)]
    results = PROJECT / "recipes" / "results" / "fast"
    assert timed == [
        json.loads((results / f"seed-{seed}.json").read_text())["model_sha256"]
        for seed in record.SEEDS
    ]
