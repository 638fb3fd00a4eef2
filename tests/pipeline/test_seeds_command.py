"""Train a recipe with several seeds by real dvc; stop it and continue."""

import json
import shutil
import statistics
from typing import Any

import pytest
from trainings import train_warm
from workspace import Workspace

from mnist_lstm.files import sha256


def assert_shown_as_one(workspace: Workspace, records: list[Any]) -> None:
    """In MLflow the seeds are below one run, which `sync` makes anew after a loss."""
    before = workspace.groups()
    (parent,) = before.values()
    assert list(before) == ["seeds of tried, hidden_size=24"]
    assert parent["children"] == {record["name"] for record in records}
    accuracies = [record["metrics"]["test"]["accuracy"] for record in records]
    *_, (step, mean, _) = parent["metrics"]["test_accuracy_mean"]
    assert (step, mean) == (10, pytest.approx(statistics.mean(accuracies)))
    assert "tried" not in workspace.command("sync")  # which adds the workspace's run
    assert "agrees with all" in workspace.command("verify")
    assert workspace.groups() == before
    copy = workspace.without_store(workspace.folder.with_name("copy"))
    assert "it has no parent run: fixed" in copy.command("sync")
    assert copy.groups() == before
    assert "agrees with all" in copy.command("verify")


def test_seeds_are_trained_once_recorded_and_summarized(
    workspace: Workspace, baseline: Workspace
) -> None:
    recipe = workspace.folder / "recipes" / "tried.yaml"
    shutil.copy(workspace.folder / "params.yaml", recipe)
    recipe.write_text(recipe.read_text().replace("steps: 20 ", "steps: 10 "))
    before = workspace.git("status", "--short")
    records = workspace.folder / "recipes" / "results" / "tried"
    changed = ("-S", "model.hidden_size=24")
    command = ("seeds", "2", "recipes/tried.yaml", *changed, "--record", "recipes/results/tried")
    printed = workspace.command(*command, "--workers", "2")
    for seed in range(2):
        assert f"mnist-lstm seeds: seed {seed}: validation " in printed
    assert "Running stage" not in printed
    assert workspace.git("status", "--short", "--", "results", "params.yaml", "dvc.lock") == ""
    assert {path.name for path in records.iterdir()} == {
        *("seed-0.json", "seed-0.csv", "seed-1.json", "seed-1.csv")
    }
    found = [json.loads((records / f"seed-{seed}.json").read_text()) for seed in range(2)]
    assert [record["params"]["seed"] for record in found] == [0, 1]
    assert {record["params"]["train.steps"] for record in found} == {10}
    assert {record["params"]["model.hidden_size"] for record in found} == {24}
    assert found[0]["model_sha256"] != found[1]["model_sha256"]
    for record, seed in zip(found, range(2), strict=True):
        *_, last = (records / f"seed-{seed}.csv").read_text().splitlines()
        assert float(last.split(",")[4]) == record["metrics"]["test"]["accuracy"]
    mean = statistics.mean(record["metrics"]["test"]["accuracy"] for record in found)
    assert f"      test  mean {mean:.2%}, standard deviation " in printed

    assert_shown_as_one(workspace, found)
    # with the records, nothing runs; without them, the experiments are still there
    again = workspace.command(*command, "-S", "promote.margin=0.5", "--json")  # no stage reads it
    assert json.loads(again)["records"] == found
    shutil.rmtree(records)
    assert json.loads(workspace.command(*command, "--json"))["records"] == found
    # a seed that is trained alone has the weights that it had beside another
    alone = baseline.clone(workspace.folder.with_name("alone"))
    shutil.copytree(baseline.folder / "data", alone.folder / "data", dirs_exist_ok=True)
    for key, value in {"seed": 0, "train.steps": 10, "model.hidden_size": 24}.items():
        alone.set(key, value)
    printed, _ = train_warm(alone).communicate()
    trained = alone.folder / "results" / "train" / "model.safetensors"
    assert trained.is_file(), printed
    assert sha256(trained) == found[0]["model_sha256"]
    shutil.rmtree(records)
    recipe.unlink()
    assert before.replace("?? recipes/tried.yaml\n", "") == workspace.git("status", "--short")
