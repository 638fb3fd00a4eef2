"""The MLflow run of a training, created from the training's files and kept equal to them.

Each training has one run, which is found by the training_id. Points that the run has are not logged
again. So logging the same files twice changes nothing, and an incomplete run is completed.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    RunStatus,
    RunTag,
    ViewType,
)
from mlflow.types import Schema, TensorSpec

from mnist_lstm.pipeline.params import flatten
from mnist_lstm.pipeline.result_files import RunRecord
from mnist_lstm.tracking.logged_model import has_model, log_model
from mnist_lstm.tracking.store import Store, one_process
from mnist_lstm.tracking.view import (
    CURVE,
    EVALUATION,
    Point,
    View,
    curve,
    milliseconds,
    tags_of,
)

StoredRun = mlflow.entities.Run  # a run as MLflow returns it

EDITABLE = ("mlflow.note.content",)  # a tag that people may edit in MLflow
TRAINER = "trainer"  # a tag that a run has while it trains
BATCH = 1000  # metrics in one call: the server's limit


@dataclass(frozen=True)
class Differences:
    """The parts of a view that a run lacks, and those that contradict it."""

    tags: Mapping[str, str]
    points: Mapping[Point, float]
    files: Mapping[str, bytes]
    model: bool
    ending: bool
    contradictions: Sequence[str]  # differences that MLflow cannot correct in a run

    def lines(self) -> list[str]:
        """A line for each difference."""
        lines = list(self.contradictions)
        if self.points:
            keys = ", ".join(sorted({key.partition("/")[0] for key, _, _ in self.points}))
            lines.append(f"{len(self.points):,} points of {keys} are missing")
        lines += [f"its tag {key} is not {value!r}" for key, value in self.tags.items()]
        lines += [f"its artifact {path} is missing or differs" for path in self.files]
        lines += ["its model is missing"] * self.model
        lines += ["its state or its end time differs"] * self.ending
        return lines


class TrackedRun:
    """The MLflow run that shows one training."""

    def __init__(self, store: Store, about: RunRecord) -> None:
        """Find the run of a training, or create it. Raises TrackingError."""
        self.store = store
        with store.errors(), one_process(store.lock):
            found = runs(store, f"tags.training_id = '{about.training_id}'")
            run = found[0] if found else self._create(about)
            self.id: str = run.info.run_id
            params = flatten(about.params).items()
            missing = [Param(k, str(v)) for k, v in params if k not in run.data.params]
            tags = [RunTag(*tag) for tag in tags_of(about).items()]
            store.client.log_batch(self.id, params=missing, tags=tags)
            store.client.log_inputs(self.id, _inputs(about))
            if run.info.status != RunStatus.to_string(RunStatus.FINISHED):
                store.client.update_run(self.id, RunStatus.to_string(RunStatus.RUNNING))
            self._points = {_point(metric) for metric in metrics(store, run)}

    def log_rows(
        self, rows: Sequence[Mapping[str, Any]], timings: Sequence[Mapping[str, Any]]
    ) -> None:
        """Log rows of curve.csv and of timing.csv, one pair per step. Raises TrackingError."""
        with self.store.errors():
            self._log(curve(rows, timings))

    def log_trainer(self, where: str) -> None:
        """Set a tag that names the training process, until `finish`. Raises TrackingError."""
        with self.store.errors():
            self.store.client.set_tag(self.id, TRAINER, where)

    def finish(self, status: str, about: RunRecord, ended: str) -> None:
        """Close the run at the time `ended`: FINISHED, FAILED, KILLED. Raises TrackingError."""
        with self.store.errors():
            client = self.store.client
            client.log_batch(self.id, tags=[RunTag(*tag) for tag in tags_of(about).items()])
            close(self.store, client.get_run(self.id), status, milliseconds(ended))

    def complete(self, view: View, lacks: Differences) -> None:
        """Log everything of a view that the run lacks. Raises TrackingError."""
        with self.store.errors():
            self._log(lacks.points)
            with tempfile.TemporaryDirectory() as folder:
                for name, content in lacks.files.items():
                    path = Path(folder, name)
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(content)
                if lacks.files:
                    self.store.client.log_artifacts(self.id, folder)
            if lacks.model:
                log_model(self.store, self.id, view)
            tags = [RunTag(*tag) for tag in lacks.tags.items()]
            self.store.client.log_batch(self.id, tags=tags)
            if lacks.ending:
                run = self.store.client.get_run(self.id)
                close(self.store, run, "FINISHED", milliseconds(view.about.ended))

    def _create(self, about: RunRecord) -> StoredRun:
        return self.store.client.create_run(
            self.store.experiment_id,
            start_time=milliseconds(about.started),
            tags={"training_id": about.training_id},
            run_name=about.name,
        )

    def _log(self, points: Mapping[Point, float]) -> None:
        new = {point: value for point, value in points.items() if point not in self._points}
        batch = [Metric(key, value, at, step) for (key, step, at), value in new.items()]
        for start in range(0, len(batch), BATCH):
            self.store.client.log_batch(self.id, batch[start : start + BATCH])
        self._points |= new.keys()


def project(store: Store, view: View) -> list[str]:
    """Make the run of a training equal to its files; returns a line for each difference.

    A run that contradicts the files is deleted, in the same way as by MLflow's UI, and created
    again. Raises TrackingError.
    """
    with store.errors():
        found = runs(store, f"tags.training_id = '{view.about.training_id}'")
        if not found:
            lines = ["it has no run"]
        else:
            lacks = differences(store, found[0], view)
            lines = lacks.lines()
            if not lines:
                return []
            if lacks.contradictions:
                store.client.delete_run(found[0].info.run_id)
        run = TrackedRun(store, view.about)
        run.complete(view, differences(store, store.client.get_run(run.id), view))
        return lines


def differences(store: Store, run: StoredRun, view: View) -> Differences:
    """Compare a run with a view of the files. Raises TrackingError."""
    with store.errors():
        there = metrics(store, run)
        points = {_point(metric) for metric in there}
        strangers = {
            metric.key
            for metric in there
            if metric.key in CURVE and view.points.get(_point(metric)) != metric.value
        }
        params = run.data.params
        # keep an evaluation later than those of the view: its files may be on another machine
        later = max((at for key, _, at in view.points if key.startswith(EVALUATION)), default=0)
        outdated = any(key.startswith(EVALUATION) and at > later for key, _, at in points)
        tags = {
            key: value
            for key, value in view.tags.items()
            if not (key in run.data.tags if key in EDITABLE else run.data.tags.get(key) == value)
            and not (outdated and key.startswith("evaluate."))
        }
        files = {
            path: content
            for path, content in _other_files(store, run, view.files).items()
            if not (outdated and path.startswith(("evaluate/", "params.yaml")))
        }
        return Differences(
            tags,
            {point: value for point, value in view.points.items() if point not in points},
            files,
            not has_model(store, run, view.about.model_sha256),
            (run.info.status, run.info.end_time)
            != (RunStatus.to_string(RunStatus.FINISHED), milliseconds(view.about.ended)),
            [
                *(
                    f"its parameter {key} is {params.get(key)}, not {value}"
                    for key, value in view.params.items()
                    if params.get(key) != value
                ),
                *(f"its {key} has points that its training lacks" for key in sorted(strangers)),
            ],
        )


def runs(store: Store, condition: str = "") -> list[StoredRun]:
    """The runs of the experiment that meet an MLflow filter, the earliest first."""
    found: list[StoredRun] = []
    token = None
    while True:
        page = store.client.search_runs(
            [store.experiment_id],
            condition,
            run_view_type=ViewType.ACTIVE_ONLY,
            order_by=["start_time"],
            page_token=token,
        )
        found += page
        token = page.token
        if not token:
            return found


def close(store: Store, run: StoredRun, status: str, ended: int) -> None:
    """Set a run's state and its end, in milliseconds."""
    if TRAINER in run.data.tags:
        store.client.delete_tag(run.info.run_id, TRAINER)
    store.client.set_terminated(run.info.run_id, status, ended)


def mark_killed(store: Store, run: StoredRun) -> None:
    """Mark a run as killed, at the time of its last metric. Raises TrackingError."""
    with store.errors():
        times = [metric.timestamp for metric in metrics(store, run)]
        close(store, run, "KILLED", max(times, default=run.info.start_time))


def delete(store: Store, run: StoredRun) -> None:
    """Delete a run, in the same way as MLflow's UI. Raises TrackingError."""
    with store.errors():
        store.client.delete_run(run.info.run_id)


def artifact(store: Store, run: StoredRun, path: str) -> bytes | None:
    """The content of an artifact of a run; None if the run has no artifact at this path."""
    run_id = run.info.run_id
    listed = store.client.list_artifacts(run_id, str(Path(path).parent))
    if path not in [file.path for file in listed]:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        return Path(store.client.download_artifacts(run_id, path, scratch)).read_bytes()


def _point(metric: Metric) -> Point:
    return metric.key, metric.step, metric.timestamp


def metrics(store: Store, run: StoredRun) -> list[Metric]:
    """All points of all metrics of a run."""
    histories = (store.client.get_metric_history(run.info.run_id, key) for key in run.data.metrics)
    return [metric for history in histories for metric in history]


def _other_files(store: Store, run: StoredRun, expected: Mapping[str, bytes]) -> dict[str, bytes]:
    """The expected artifacts that a run lacks, or has with other bytes."""
    client, run_id = store.client, run.info.run_id
    folders = {str(Path(path).parent) for path in expected}
    sizes = {
        file.path: file.file_size
        for folder in folders
        for file in client.list_artifacts(run_id, None if folder == "." else folder)
    }
    with tempfile.TemporaryDirectory() as scratch:
        return {
            path: content
            for path, content in expected.items()
            if sizes.get(path) != len(content)
            or Path(client.download_artifacts(run_id, path, scratch)).read_bytes() != content
        }


def _inputs(about: RunRecord) -> list[DatasetInput]:
    """The row sequences as MLflow data sets: one for each split, identified by its digest."""
    pixels = TensorSpec(np.dtype("uint8"), (-1, *about.image), "pixels")
    schema = {"mlflow_tensorspec": {"features": Schema([pixels]).to_json(), "targets": None}}
    return [
        DatasetInput(
            Dataset(
                name=f"{about.dataset} {split}",
                digest=found.sha256[:32],  # MLflow keeps 36 characters
                source_type="local",
                source=json.dumps({"uri": found.file}),
                schema=json.dumps(schema),
                profile=json.dumps({"num_rows": found.images}),
            ),
            [InputTag("mlflow.data.context", split)],
        )
        for split, found in about.data.items()
    ]
