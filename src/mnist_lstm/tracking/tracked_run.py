"""The MLflow run of one training, while it trains and when it is completed.

Points that the run has are not logged again.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.types import Schema, TensorSpec

from mnist_lstm.pipeline.params import flatten
from mnist_lstm.pipeline.result_files import RunRecord
from mnist_lstm.tracking.differences import ARTIFACTS, Differences, new_name
from mnist_lstm.tracking.logged_model import log_links
from mnist_lstm.tracking.run_name import run_name
from mnist_lstm.tracking.store import Store, one_process
from mnist_lstm.tracking.stored_runs import TRAINER, StoredRun, close, metrics, point_of, runs
from mnist_lstm.tracking.view import Point, View, curve, dataset_of, milliseconds, tags_of

BATCH = 1000  # metrics in one call: the server's limit


class TrackedRun:
    """The MLflow run that shows one training."""

    def __init__(self, store: Store, about: RunRecord) -> None:
        """Find the run of a training, or create it. Raises TrackingError."""
        self.store = store
        with store.errors(), one_process(store.lock):
            found = runs(store, f"tags.training_id = '{about.training_id}'")
            run = found[0] if found else self._create(about)
            self.id: str = run.info.run_id
            if name := new_name(store, run, about):
                store.client.update_run(self.id, name=name)
            params = flatten(about.params).items()
            missing = [Param(k, str(v)) for k, v in params if k not in run.data.params]
            tags = [RunTag(*tag) for tag in tags_of(about).items()]
            store.client.log_batch(self.id, params=missing, tags=tags)
            store.client.log_inputs(self.id, _inputs(about))
            if run.info.status != RunStatus.to_string(RunStatus.FINISHED):
                store.client.update_run(self.id, RunStatus.to_string(RunStatus.RUNNING))
            self._points = {point_of(metric) for metric in metrics(store, run)}

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
            if lacks.name:
                self.store.client.update_run(self.id, name=lacks.name)
            with tempfile.TemporaryDirectory() as folder:
                for name, content in lacks.files.items():
                    path = Path(folder, name)
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(content)
                if lacks.files:
                    self.store.client.log_artifacts(self.id, folder)
            for shown in lacks.models:
                # imports torch, which a run that has its models does not need
                from mnist_lstm.tracking.exported_model import log_model

                log_model(self.store, self.store.client.get_run(self.id), view, shown)
            for shown, missing in lacks.links:
                log_links(self.store, self.id, view, shown, missing)
            tags = [RunTag(*tag) for tag in lacks.tags.items()]
            if lacks.artifacts:
                tags.append(RunTag(ARTIFACTS, lacks.artifacts))
            self.store.client.log_batch(self.id, tags=tags)
            if lacks.ending:
                run = self.store.client.get_run(self.id)
                close(self.store, run, "FINISHED", milliseconds(view.about.ended))

    def _create(self, about: RunRecord) -> StoredRun:
        return self.store.client.create_run(
            self.store.experiment_id,
            start_time=milliseconds(about.started),
            tags=tags_of(about),
            run_name=run_name(self.store.root, about),
        )

    def _log(self, points: Mapping[Point, float]) -> None:
        new = {point: value for point, value in points.items() if point not in self._points}
        batch = [Metric(key, value, at, step) for (key, step, at), value in new.items()]
        for start in range(0, len(batch), BATCH):
            self.store.client.log_batch(self.id, batch[start : start + BATCH])
        self._points |= new.keys()


def _inputs(about: RunRecord) -> list[DatasetInput]:
    """The row sequences as MLflow data sets: one for each split, identified by its digest."""
    pixels = TensorSpec(np.dtype("uint8"), (-1, *about.image), "pixels")
    schema = {"mlflow_tensorspec": {"features": Schema([pixels]).to_json(), "targets": None}}
    return [
        DatasetInput(
            Dataset(
                name=name,
                digest=digest,
                source_type="local",
                source=json.dumps({"uri": found.file}),
                schema=json.dumps(schema),
                profile=json.dumps({"num_rows": found.images}),
            ),
            [InputTag("mlflow.data.context", split)],
        )
        for split, found in about.data.items()
        for name, digest in [dataset_of(about, split)]
    ]
