"""A run's result files as its artifacts in the store have them, for where DVC lost them."""

import os
import tempfile
from pathlib import Path

import mlflow

from mnist_lstm import UserError
from mnist_lstm.pipeline.result_files import read_json
from mnist_lstm.runs.reproduction import Made
from mnist_lstm.runs.resolve import NoSuchRun
from mnist_lstm.tracking.projection import runs
from mnist_lstm.tracking.store import Store, open_store


def find(root: Path, text: str) -> Made | None:
    """The run of the store that `text` is a name, an id or an experiment of, or the start of one.

    None where the store has no such run. Raises NoSuchRun where that one has no files there,
    UserError with the candidates where there are several, TrackingError.
    """
    if not (text and (os.environ.get("MLFLOW_TRACKING_URI") or (root / "mlflow.db").is_file())):
        return None
    store = open_store(root)
    with store.errors():
        there = runs(store)
        found = [run for run in there if text in _names(run)] or [
            run for run in there if any(name.startswith(text) for name in _names(run))
        ]
        if not found:
            return None
        if len(found) > 1:
            listed = ", ".join(f"{run.info.run_name} (id {run.info.run_id[:8]})" for run in found)
            raise UserError(
                f"{text!r} may be any of {len(found)} runs in MLflow: {listed}; write more of one"
            )
        return _made(store, found[0])


def _names(run: mlflow.entities.Run) -> list[str]:
    tags = run.data.tags
    named = (tags.get("training_id"), tags.get("dvc_experiment"))
    return [run.info.run_name, run.info.run_id, *(name for name in named if name)]


def _made(store: Store, run: mlflow.entities.Run) -> Made:
    paths = {
        file.path
        for folder in ("train", "evaluate")
        for file in store.client.list_artifacts(run.info.run_id, folder)
    }
    if "train/run.json" not in paths:
        raise NoSuchRun(
            f"{run.info.run_name} is a run in MLflow, but has no run.json there nor here: it did "
            "not finish, or was never evaluated"
        )
    with tempfile.TemporaryDirectory() as scratch:

        def read(path: str) -> dict[str, object]:
            if path not in paths:
                return {}
            return read_json(Path(store.client.download_artifacts(run.info.run_id, path, scratch)))

        about, metrics = read("train/run.json"), read("evaluate/metrics.json")
        evaluated = read("evaluate/run.json").get("params", {})
    return Made(about, metrics, evaluated if isinstance(evaluated, dict) else {})
