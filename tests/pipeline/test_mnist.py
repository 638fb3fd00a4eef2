"""Real MNIST, where MNIST_MIRROR reaches it."""

import os
from pathlib import Path

import pytest
from samples import PROJECT
from workspace import Workspace

from mnist_lstm.pipeline.result_files import read_rows


@pytest.mark.mnist
def test_300_steps_on_mnist_pass_92_percent(tmp_path: Path) -> None:
    mirror = os.environ.get("MNIST_MIRROR")
    if not mirror:
        pytest.skip("MNIST_MIRROR is not set")
    workspace = Workspace.create(tmp_path)
    (tmp_path / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    workspace.set("train.steps", 300)
    workspace.set("train.eval_every", 300)
    # one thread, as all of them here: other tests have the other core, and a training with two
    # threads waits for the slower one at each turn
    workspace.dvc("repro", "train", MNIST_MIRROR=str((PROJECT / mirror).resolve()))
    (row,) = read_rows(tmp_path / "results" / "train" / "curve.csv")
    assert (row["step"], row["epoch"]) == (300, 0)
    assert row["test_accuracy"] > 0.92
