"""Experiments in a clone that has run nothing before: all are in the one MLflow store."""

import shutil
import time
from pathlib import Path
from urllib.parse import urlparse

import pytest
from tracked import contents
from workspace import Workspace, stages_run

from mnist_lstm.tracking.store import open_store
from mnist_lstm.tracking.stored_runs import runs

CURVE = "test_accuracy"


def assert_complete(workspace: Workspace) -> None:
    """The four runs are complete, in the project's one store and its folder."""
    store, found = open_store(workspace.folder), workspace.runs()
    names = {run.data.tags["dvc_experiment"] for run in found}
    assert names <= set(workspace.dvc("exp", "list", "--name-only").split())
    assert len(names) == len(found) == 4
    # what differs from the committed recipe, except where nothing does
    titles = {run.info.run_name for run in found} - names
    assert titles == {
        *("hidden_size=48", "learning_rate=0.01", "hidden_size=48, learning_rate=0.01")
    }
    for run in found:
        assert run.info.status == "FINISHED"
        assert run.data.tags["name"] == run.data.tags["dvc_experiment"]
        assert run.data.tags["dvc_baseline"] == run.data.tags["commit"]
        assert run.data.tags["commit"] == workspace.git("rev-parse", "HEAD").strip()
        assert run.data.tags["dirty"] == "False"
        assert len(store.client.get_metric_history(run.info.run_id, CURVE)) == 2
        folder = Path(urlparse(run.info.artifact_uri).path)
        assert folder.is_relative_to(workspace.folder / "mlruns")
        assert (folder / "train" / "curve.csv").is_file()
        assert (folder / "evaluate" / "metrics.json").is_file()
        (model,) = run.outputs.model_outputs
        location = store.client.get_logged_model(model.model_id).artifact_location
        assert (Path(urlparse(location).path) / "data" / "model.pt2").is_file()
    keys = ("model.hidden_size", "train.learning_rate")
    swept = {tuple(run.data.params[key] for key in keys) for run in found}
    assert swept == {("32", "0.005"), ("32", "0.01"), ("48", "0.005"), ("48", "0.01")}
    assert not any((workspace.folder / ".checkpoints").iterdir())


def test_four_queued_experiments_are_in_the_one_store(sweep: Workspace) -> None:
    assert_complete(sweep)
    assert stages_run((sweep.folder / "again.txt").read_text()) == []  # it was in the cache


def test_a_store_that_is_lost_comes_back_as_it_was(sweep: Workspace, tmp_path: Path) -> None:
    """From DVC's cache and git."""
    store = open_store(sweep.folder)
    before = [contents(store, run, tmp_path / run.info.run_name) for run in runs(store)]
    copy = sweep.copy(tmp_path / "copy")
    (copy.folder / "mlflow.db").unlink()
    shutil.rmtree(copy.folder / "mlruns")
    assert "runs updated: 4, up to date before: 0" in copy.command("sync")
    store = open_store(copy.folder)
    after = [contents(store, run, tmp_path / f"{run.info.run_name}-again") for run in runs(store)]
    assert after == before
    assert "runs updated: 0, up to date before: 4" in copy.command("sync")
    assert "agrees with all 4 results" in copy.command("verify")


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_rounds_of_four_queued_experiments(baseline: Workspace, tmp_path: Path) -> None:
    for number in range(10):
        started = time.monotonic()
        clone = baseline.clone(tmp_path / str(number))
        clone.run_the_sweep(warm=False)
        assert_complete(clone)
        print(f"round {number + 1}: four runs, complete, in {time.monotonic() - started:.0f} s")
