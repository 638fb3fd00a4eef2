"""A fresh clone, without cache and store, repeats the results that are committed and compares."""

import json

from workspace import Workspace

METRICS = "results/evaluate/metrics.json"


def test_a_clone_shows_repeats_and_compares_the_committed_results(
    clone: Workspace, baseline: Workspace
) -> None:
    shown = json.loads(clone.dvc("metrics", "show", "--json"))[""]["data"][METRICS]["data"]
    assert shown == baseline.json(METRICS)

    clone.dvc("repro", "train")
    model = "results/train/model.safetensors"
    assert clone.results()[model] == baseline.results()[model]
    assert clone.git("status", "--porcelain", "--", "results/train") == ""

    clone.set("train.steps", 60)
    clone.dvc("repro")
    accuracy = json.loads(clone.dvc("metrics", "diff", "--json"))[METRICS]["test.accuracy"]
    assert accuracy["old"] == shown["test"]["accuracy"]
    assert accuracy["new"] == clone.json(METRICS)["test"]["accuracy"]
    assert accuracy["diff"] == accuracy["new"] - accuracy["old"] > 0
    assert "test.accuracy" in clone.dvc("metrics", "diff")
