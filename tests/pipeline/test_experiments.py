"""Experiments on a clone that has run nothing yet: all of them in the one store."""

import shutil
import time
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import pytest
from tracked import contents
from workspace import Workspace

from mnist_lstm.tracking.projection import runs
from mnist_lstm.tracking.store import open_store

QUEUED = {"one": 1, "two": 2, "three": 3, "four": 4}  # their seeds


def run_the_queue(clone: Workspace) -> None:
    """Queue four experiments, work on all of them at once, and wait for their end."""
    for name, seed in QUEUED.items():
        clone.dvc("exp", "run", "--queue", "--name", name, "--set-param", f"seed={seed}")
    status = clone.work_off_the_queue("4")
    assert status.count("Success") == 4, status + clone.dvc("queue", "logs", "one")


def assert_complete(clone: Workspace, name: str, run: mlflow.entities.Run) -> None:
    """The run has all that belongs to it, in the project's one store and below its folder."""
    baseline = clone.git("rev-parse", "HEAD").strip()
    assert run.info.status == "FINISHED"
    assert run.data.tags["dvc_experiment"] == name
    assert run.data.tags["dvc_baseline"] == run.data.tags["commit"] == baseline
    assert run.data.tags["dirty"] == "False"
    assert len(open_store(clone.folder).client.get_metric_history(run.info.run_id, CURVE)) == 2
    folder = Path(urlparse(run.info.artifact_uri).path)
    assert folder.is_relative_to(clone.folder / "mlruns")
    assert (folder / "train" / "curve.csv").is_file()
    assert (folder / "evaluate" / "metrics.json").is_file()
    (model,) = run.outputs.model_outputs
    location = open_store(clone.folder).client.get_logged_model(model.model_id)
    assert (Path(urlparse(location.artifact_location).path) / "data" / "model.pt2").is_file()


CURVE = "test_accuracy"


def test_four_queued_experiments_and_what_syncing_brings_back(
    clone: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_the_queue(clone)
    found = {run.info.run_name: run for run in clone.runs()}
    assert found.keys() == QUEUED.keys()
    for name, run in found.items():
        assert_complete(clone, name, run)
        assert run.data.params["seed"] == str(QUEUED[name])
    shown = clone.dvc("exp", "show", "--csv")
    assert all(name in shown for name in found)
    assert not any((clone.folder / ".checkpoints").iterdir())

    # a store that is lost comes back from DVC's cache and git, and equals what it was
    store = open_store(clone.folder)
    before = [contents(store, run, tmp_path / run.info.run_name) for run in runs(store)]
    (clone.folder / "mlflow.db").unlink()
    shutil.rmtree(clone.folder / "mlruns")
    assert "runs brought into line: 4, in line before: 0" in clone.command("sync")
    shutil.copy(clone.folder / "mlflow.db", copy := tmp_path / "copy.db")  # MLflow has the lost one
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy}")
    store = open_store(clone.folder)
    after = [contents(store, run, tmp_path / f"{run.info.run_name}-again") for run in runs(store)]
    assert after == before
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert "runs brought into line: 0, in line before: 4" in clone.command("sync")
    assert "agrees with all results, 4 of them" in clone.command("verify")


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_rounds_of_four_queued_experiments(baseline: Workspace, tmp_path: Path) -> None:
    for number in range(10):
        started = time.monotonic()
        clone = baseline.clone(tmp_path / str(number))
        run_the_queue(clone)
        found = {run.info.run_name: run for run in clone.runs()}
        assert found.keys() == QUEUED.keys()
        for name, run in found.items():
            assert_complete(clone, name, run)
        print(f"round {number + 1}: four runs, complete, in {time.monotonic() - started:.0f} s")
