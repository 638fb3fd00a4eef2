"""Samples for tests of tracking: a training on drawn digits, its rows and its results."""

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mlflow
from samples import BEGUN, small_model

from mnist_lstm.files import sha256
from mnist_lstm.learning.fit import Evaluation
from mnist_lstm.pipeline.result_files import (
    EvaluationRecord,
    RunRecord,
    Training,
    row,
    write_json,
    write_rows,
)
from mnist_lstm.pipeline.timing import Timing
from mnist_lstm.tracking import registry
from mnist_lstm.tracking.store import Store

STEPS = (50, 100)
ROWS = [row(Evaluation(step, 0, 0.5, step / 1000, step / 999, 1 / step)) for step in STEPS]
TIMINGS = [
    row(
        Timing(
            step,
            f"2026-01-02T03:{4 + step // 60:02}:{step % 60:02}+00:00",
            1.0,
            200.0,
            150.0,
            None,
            None,
        )
    )
    for step in STEPS
]


def about(training_id: str = "a" * 32, **other: Any) -> RunRecord:
    """The record of a training that has started, on small images: its model is exported often."""
    return replace(BEGUN, training_id=training_id, **{"image": (2, 8)} | other)


def leave_results(folder: Path, record: RunRecord | None = None) -> Path:
    """Write results of train and evaluate into a folder."""
    small_model(num_layers=1).save(folder / "train" / "model.safetensors")
    finished = (record or about()).finished(
        TIMINGS[-1]["time"], sha256(folder / "train" / "model.safetensors")
    )
    Training(finished, ROWS, TIMINGS).write(folder / "train")
    write_json(folder / "evaluate" / "metrics.json", {"test": {"accuracy": 0.1, "loss": 0.2}})
    write_rows(folder / "evaluate" / "predictions.csv", [{"actual": 1, "predicted": 1}])
    evaluated(folder / "evaluate", "2026-01-02T04:00:00+00:00", batch_size=10)
    return folder


def evaluated(folder: Path, ended: str, batch_size: int, training_id: str = "a" * 32) -> Path:
    """The run.json of an evaluation."""
    settings = {"evaluate.batch_size": batch_size}
    write_json(folder / "run.json", vars(EvaluationRecord(training_id, ended, ended, settings)))
    return folder


def every_version(store: Store) -> list[registry.Version]:
    """All versions of the registered model, the earliest first."""
    return [registry.as_version(one) for one in registry.versions(store)]


def contents(store: Store, run: mlflow.entities.Run, scratch: Path) -> dict[str, object]:
    """Everything that a store has of a run, except its own identifiers."""
    client, run_id = store.client, run.info.run_id
    scratch.mkdir()
    folder = Path(client.download_artifacts(run_id, "", str(scratch)))
    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    program = Path(urlparse(model.artifact_location).path) / "data" / "model.pt2"
    return {
        "metrics": {
            key: [(m.step, m.timestamp, m.value) for m in client.get_metric_history(run_id, key)]
            for key in run.data.metrics
        },
        "params": run.data.params,
        "tags": run.data.tags,
        "files": {
            str(path.relative_to(folder)): sha256(path)
            for path in folder.rglob("*")
            if path.is_file()
        },
        "model": (model.tags, weights(program)),
        "times": (run.info.start_time, run.info.end_time, run.info.status, run.info.run_name),
    }


def weights(program: Path) -> dict[str, str]:
    """Digests of the tensors in an exported program, without the paths of source files in it."""
    with zipfile.ZipFile(program) as file:
        return {
            name.partition("/")[2]: hashlib.sha256(file.read(name)).hexdigest()
            for name in file.namelist()
            if "/data/weights/weight_" in name
        }
