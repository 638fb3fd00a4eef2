"""A fresh clone without cache and MLflow store shows the committed results and repeats them."""

import json

from workspace import Workspace

METRICS = "results/evaluate/metrics.json"


def test_a_clone_shows_and_repeats_the_committed_results(
    clone: Workspace, baseline: Workspace
) -> None:
    shown = json.loads(clone.dvc("metrics", "show", "--json"))[""]["data"][METRICS]["data"]
    assert shown == baseline.json(METRICS)

    clone.dvc("repro", "train")
    model = "results/train/model.safetensors"
    assert clone.results()[model] == baseline.results()[model]
    assert clone.git("status", "--porcelain", "--", "results/train") == ""
