"""Experiments on a clone that has run nothing yet: all of them in the one store."""

import time
from pathlib import Path
from urllib.parse import urlparse

from workspace import Workspace

from mnist_lstm.tracking.store import open_store


def test_temporary_and_queued_experiments_share_the_store(clone: Workspace) -> None:
    printed = clone.dvc("exp", "run", "--temp", "--name", "short", "--set-param", "train.steps=10")
    assert "short" in printed
    for name, seed in (("one", 1), ("two", 2)):
        clone.dvc("exp", "run", "--queue", "--name", name, "--set-param", f"seed={seed}")
    clone.dvc("queue", "start", "--jobs", "2")
    deadline = time.monotonic() + 240
    while "Running" in (status := clone.dvc("queue", "status")) or "Queued" in status:
        assert time.monotonic() < deadline, status
        time.sleep(1)
    assert status.count("Success") == 2, status + clone.dvc("queue", "logs", "one")

    runs = {run.info.run_name: run for run in clone.runs()}
    assert runs.keys() == {"short", "one", "two"}
    baseline = clone.git("rev-parse", "HEAD").strip()
    for name, run in runs.items():
        assert run.info.status == "FINISHED"
        assert run.data.tags["dvc_experiment"] == name
        assert run.data.tags["dvc_baseline"] == run.data.tags["commit"] == baseline
        assert run.data.tags["dirty"] == "False"
        folder = Path(urlparse(run.info.artifact_uri).path)
        assert folder.is_relative_to(clone.folder / "mlruns")
        assert (folder / "train" / "curve.csv").is_file()
        assert (folder / "evaluate" / "metrics.json").is_file()
        (model,) = run.outputs.model_outputs
        location = open_store(clone.folder).client.get_logged_model(model.model_id)
        assert (Path(urlparse(location.artifact_location).path) / "data" / "model.pt2").is_file()
    assert runs["one"].data.params["seed"] == "1"
    assert runs["short"].data.params["train.steps"] == "10"
    shown = clone.dvc("exp", "show", "--csv")
    assert all(name in shown for name in runs)
    assert not any((clone.folder / ".checkpoints").iterdir())
