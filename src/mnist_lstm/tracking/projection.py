"""The MLflow run of a training, created from the training's files and kept equal to them.

Each training has one run, which is found by the training_id. Points that the run has are not logged
again. So logging the same files twice changes nothing, and an incomplete run is completed.
"""

import hashlib
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModel,
    Metric,
    Param,
    RunStatus,
    RunTag,
)
from mlflow.types import Schema, TensorSpec

from mnist_lstm.pipeline.params import flatten
from mnist_lstm.pipeline.result_files import RunRecord, Training
from mnist_lstm.tracking.logged_model import (
    EARLIER_NAME,
    has_model,
    links,
    log_links,
    logged_model,
)
from mnist_lstm.tracking.overview import Overview
from mnist_lstm.tracking.run_name import run_name
from mnist_lstm.tracking.store import NOTE, Store, is_server, one_process
from mnist_lstm.tracking.stored_runs import (
    TRAINER,
    StoredRun,
    close,
    delete,
    downloaded,
    metrics,
    runs,
    sizes,
)
from mnist_lstm.tracking.view import (
    CURVE,
    MeasuredOn,
    Point,
    ShownModel,
    View,
    curve,
    dataset_of,
    milliseconds,
    tags_of,
)

EDITABLE = (NOTE,)  # a tag that people may edit in MLflow
PRUNED = "pruned"  # a tag of a run that a search ended early: why
# a tag of a run on a server: the digests of its artifacts, which then need not be downloaded
ARTIFACTS = "artifacts"
BATCH = 1000  # metrics in one call: the server's limit
# metrics that earlier versions logged for what is now test_accuracy, when_trained_test_loss and
# others
EARLIER_METRICS = ("trained/", "evaluation/", "test_loss", "validation_loss")


@dataclass(frozen=True)
class Differences:
    """The parts of a view that a run lacks, and those that contradict it."""

    name: str | None
    tags: Mapping[str, str]
    points: Mapping[Point, float]
    links: Sequence[tuple[ShownModel, Mapping[Point, MeasuredOn]]]
    files: Mapping[str, bytes]
    models: Sequence[ShownModel]
    ending: bool
    contradictions: Sequence[str]  # differences that MLflow cannot correct in a run
    artifacts: str | None = None  # the tag ARTIFACTS that it must get, when it has the files

    def lines(self) -> list[str]:
        """A line for each difference."""
        lines = list(self.contradictions)
        if self.points:
            keys = ", ".join(sorted({key.partition("/")[0] for key, _, _ in self.points}))
            lines.append(f"{len(self.points):,} points of {keys} are missing")
        lines += [f"it is not called {self.name!r}"] if self.name else []
        lines += [f"its tag {key} is not {value!r}" for key, value in self.tags.items()]
        lines += [f"its artifact {path} is missing or differs" for path in self.files]
        lines += [f"its {shown.kind} is missing" for shown in self.models]
        for shown, points in self.links:
            if shown not in self.models:
                keys = ", ".join(sorted({key for key, _, _ in points}))
                lines.append(f"its {shown.kind} lacks {keys}")
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
            if name := _new_name(store, run, about):
                store.client.update_run(self.id, name=name)
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


def project(store: Store, view: View, overview: Overview | None = None) -> list[str]:
    """Make the run of a training equal to its files; returns a line for each difference.

    A run that contradicts the files is deleted, in the same way as by MLflow's UI, and created
    again. Of several runs of the training, one is kept. Raises TrackingError.
    """
    with store.errors():
        found = runs(store, f"tags.training_id = '{view.about.training_id}'")
        if len(found) > 1:
            return _without_others(store, found, view) + project(store, view, overview)
        if not found:
            lines = ["it has no run"]
        else:
            lacks = differences(store, found[0], view, overview)
            lines = lacks.lines()
            if not lines:
                if lacks.artifacts:  # an earlier version of this project has logged them
                    store.client.set_tag(found[0].info.run_id, ARTIFACTS, lacks.artifacts)
                return []
            if lacks.contradictions:
                delete(store, found[0])
        run = TrackedRun(store, view.about)
        if found and lacks.contradictions:
            _keep_edits(store, found[0], run.id, view)
        run.complete(view, differences(store, store.client.get_run(run.id), view))
        return lines


def _without_others(store: Store, found: Sequence[StoredRun], view: View) -> list[str]:
    """Delete all runs of a training but the one that fits its files best; a line for each."""
    _, *others = sorted(found, key=lambda run: len(differences(store, run, view).lines()))
    for run in others:
        delete(store, run)
    return [second_run(run) for run in others]


def second_run(run: StoredRun) -> str:
    """The line for a run of a training that has another one."""
    return f"it has a second run, {run.info.run_id}"


def differences(
    store: Store, run: StoredRun, view: View, overview: Overview | None = None
) -> Differences:
    """Compare a run with a view of the files. Raises TrackingError.

    On a server, an artifact of the expected size is not downloaded if the run's tag ARTIFACTS has
    its digest: that is what was uploaded.
    """
    with store.errors():
        expected = list(view.points)
        there = overview.metrics(run, expected) if overview else metrics(store, run)
        ended = milliseconds(view.about.ended)
        points = {_point(metric) for metric in there}
        strangers = {metric.key for metric in there if _is_stranger(metric, view)}
        logged = [
            overview.model(run, shown.sha256)
            if overview
            else logged_model(store, run.info.run_id, shown.sha256)
            for shown in view.models
        ]
        # keep an evaluation later than those of the view: its files may be on another machine
        outdated = max((at for _, _, at in points), default=0) > max(at for *_, at in view.points)
        tags = {
            key: value
            for key, value in view.tags.items()
            if not (key in run.data.tags if key in EDITABLE else run.data.tags.get(key) == value)
            and not (outdated and key.startswith("evaluate."))
        }
        wanted = {
            path: content
            for path, content in view.files.items()
            if not (outdated and path.startswith(("evaluate/", "params.yaml")))
        }
        uploaded = _uploaded(run) if is_server(store.uri) else {}
        digests = uploaded | {path: digest_of(content) for path, content in wanted.items()}
        files = _other_files(store, run, wanted, uploaded)
        return Differences(
            name=_new_name(store, run, view.about),
            tags=tags,
            points={point: value for point, value in view.points.items() if point not in points},
            links=[
                (shown, missing)
                for shown, its in zip(view.models, logged, strict=True)
                if (missing := links(its, shown))
            ],
            files=files,
            models=[
                shown
                for shown, its in zip(view.models, logged, strict=True)
                if not has_model(store, run, its)
            ],
            ending=(run.info.status, run.info.end_time)
            != (RunStatus.to_string(RunStatus.FINISHED), ended),
            contradictions=list(_contradictions(run, view, logged[0], strangers)),
            artifacts=json.dumps(digests) if is_server(store.uri) and digests != uploaded else None,
        )


def _contradictions(
    run: StoredRun, view: View, logged: LoggedModel | None, strangers: Iterable[str]
) -> Iterator[str]:
    """A line for each thing that MLflow cannot correct in a run.

    `strangers` are the metrics with points that the files lack.
    """
    params = run.data.params
    for key, value in view.params.items():
        if params.get(key) != value:
            yield f"its parameter {key} is {params.get(key)}, not {value}"
    for key in sorted(run.data.metrics):
        if key.startswith(EARLIER_METRICS):
            yield f"its {key} is from an earlier version of this project"
    if logged and logged.name == EARLIER_NAME:
        yield "its model is from an earlier version of this project"
    for key in sorted(strangers):
        yield f"its {key} has points that its training lacks"


def _is_stranger(metric: Metric, view: View) -> bool:
    """Whether a point of a run contradicts the files: its value differs, or they have no such row.

    A later point at the last step is of an evaluation whose files may be on another machine.
    """
    if (value := view.points.get(_point(metric))) is not None:
        return not _is_stored_as(value, metric.value)
    is_evaluation = metric.step == view.step and metric.timestamp > milliseconds(view.about.ended)
    return metric.key in CURVE and not is_evaluation


def _is_stored_as(value: float, stored: float) -> bool:
    """Whether MLflow stores a value so: for infinity it has the largest float."""
    if math.isnan(value):
        return math.isnan(stored)
    return stored in (value, max(-sys.float_info.max, min(value, sys.float_info.max)))


def project_pruned(
    store: Store, training: Training, status: str, why: str, overview: Overview | None = None
) -> list[str]:
    """Make the run of a training that a search ended early, with all that it showed.

    Returns a line for each thing that the run lacked. Raises TrackingError.
    """
    lines = lacks_of_pruned(store, training, why, overview)
    if lines:
        run = TrackedRun(store, training.about)
        run.log_rows(training.rows, training.timings)
        timings = training.timings
        run.finish(
            status, training.about, timings[-1]["time"] if timings else training.about.started
        )
        with store.errors():
            store.client.set_tag(run.id, PRUNED, why)
    return lines


def lacks_of_pruned(
    store: Store, training: Training, why: str, overview: Overview | None = None
) -> list[str]:
    """A line for each thing that the run of a training lacks. Raises TrackingError."""
    with store.errors():
        found = runs(store, f"tags.training_id = '{training.about.training_id}'")
        if not found:
            return ["it has no run"]
        expected = curve(training.rows, training.timings)
        there = overview.metrics(found[0], list(expected)) if overview else metrics(store, found[0])
        missing = expected.keys() - {_point(metric) for metric in there}
        lines = [f"{len(missing):,} of its points are missing"] if missing else []
        if found[0].data.tags.get(PRUNED) != why:
            lines.append("its run does not say why it ended early")
        return lines


def mark_pruned(
    store: Store, experiment: str, why: str, is_own: Callable[[Mapping[str, str]], bool]
) -> None:
    """Tag the run of a DVC experiment with why a search ended it. Raises TrackingError.

    Another clone may have an experiment of this name: `is_own` says by its tags whether a run is of
    this one.
    """
    with store.errors():
        for run in runs(store, f"tags.dvc_experiment = '{experiment}'"):
            if is_own(run.data.tags):
                store.client.set_tag(run.info.run_id, PRUNED, why)


def _new_name(store: Store, run: StoredRun, about: RunRecord) -> str | None:
    """The name that a run must get; None if it has it, or one that people gave it."""
    name = run_name(store.root, about)
    return name if run.info.run_name == about.name != name else None


def _keep_edits(store: Store, before: StoredRun, run_id: str, view: View) -> None:
    """Give the run that replaces another the name and the notes that people gave that one."""
    if before.info.run_name not in (view.about.name, run_name(store.root, view.about)):
        store.client.update_run(run_id, name=before.info.run_name)
    for key in EDITABLE:
        if (text := before.data.tags.get(key)) is not None:
            store.client.set_tag(run_id, key, text)


def _point(metric: Metric) -> Point:
    return metric.key, metric.step, metric.timestamp


def digest_of(content: bytes) -> str:
    """The start of a file's SHA-256, for the tag ARTIFACTS."""
    return hashlib.sha256(content).hexdigest()[:16]


def _uploaded(run: StoredRun) -> dict[str, str]:
    """The digests in the tag ARTIFACTS; none if a person has edited it."""
    try:
        return dict(json.loads(run.data.tags.get(ARTIFACTS, "{}")))
    except (ValueError, TypeError):
        return {}


def _other_files(
    store: Store, run: StoredRun, expected: Mapping[str, bytes], uploaded: Mapping[str, str]
) -> dict[str, bytes]:
    """The expected artifacts that a run lacks, or has with other bytes."""
    known = {path for path, content in expected.items() if uploaded.get(path) == digest_of(content)}
    # one request for a folder: that of the run itself has two files, and both folders of the others
    folders = {str(Path(path).parent) for path in expected}
    if known == expected.keys() and len(folders) > 1:
        folders.discard(".")
    there = sizes(store, run, folders)
    return {
        path: content
        for path, content in expected.items()
        if str(Path(path).parent) in folders
        and (
            there.get(path) != len(content)
            or (path not in known and downloaded(store, run, path) != content)
        )
    }


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
