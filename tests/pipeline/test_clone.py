"""A fresh clone compares with the results that are committed."""

import json

from workspace import Workspace


def test_a_clone_without_cache_shows_and_compares_metrics(
    clone: Workspace, baseline: Workspace
) -> None:
    shown = json.loads(clone.dvc("metrics", "show", "--json"))
    figures = shown[""]["data"]["results/evaluate/metrics.json"]["data"]
    assert figures == baseline.json("results/evaluate/metrics.json")

    clone.set("train.steps", 60)
    clone.dvc("repro")
    diff = json.loads(clone.dvc("metrics", "diff", "--json"))["diff"]
    accuracy = diff["results/evaluate/metrics.json"]["test.accuracy"]
    assert accuracy["old"] == figures["test"]["accuracy"]
    assert accuracy["new"] == clone.json("results/evaluate/metrics.json")["test"]["accuracy"]
    assert accuracy["diff"] == accuracy["new"] - accuracy["old"] != 0
    table = clone.dvc("metrics", "diff")
    assert "test.accuracy" in table


def test_the_same_recipe_gives_the_committed_results_again(
    clone: Workspace, baseline: Workspace
) -> None:
    clone.dvc("repro")
    assert clone.git("status", "--porcelain", "--", "results/train", "results/evaluate") == ""
    name = "results/train/model.safetensors"
    assert clone.results()[name] == baseline.results()[name]
