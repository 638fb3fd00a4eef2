"""A fresh clone without cache and MLflow store shows the committed results and repeats them."""

import json
import subprocess
from pathlib import Path

from samples import PROJECT
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


def test_git_converts_no_line_ends_even_if_it_is_told_to(tmp_path: Path) -> None:
    """As Git for Windows is; scripts would break, and sums in dvc.lock would differ."""
    git = ("git", "-c", "core.autocrlf=true")
    subprocess.run([*git, "clone", "--quiet", PROJECT, tmp_path / "clone"], check=True)
    for path in ("scripts/env.sh", "results/train/curve.csv", "params.yaml"):
        assert b"\r" not in (tmp_path / "clone" / path).read_bytes()
