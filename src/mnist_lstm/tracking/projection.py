"""A training's run in MLflow, brought into line with the training's files.

A training is one run, found by its training_id. What is there already is never logged again, so
that showing the same files twice changes nothing, and a run that was half logged is completed.
"""

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.pytorch
import numpy as np
import torch
import yaml
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModel,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunStatus,
    RunTag,
    ViewType,
)
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import Tensor

from mnist_lstm.model import Classifier, RowLSTM
from mnist_lstm.results import Training, read_json
from mnist_lstm.tracking.store import Store, one_process

CURVE = ("train_accuracy", "validation_accuracy", "test_accuracy", "train_loss")
SYSTEM = {
    "memory_megabytes": "system/peak_memory_usage_megabytes",
    "processor_percent": "system/process_cpu_utilization_percentage",
    "gpu_memory_megabytes": "system/gpu_0_memory_usage_megabytes",
    "gpu_percent": "system/gpu_0_utilization_percentage",
}
EVALUATION = "evaluation/"
TRAINER = "trainer"  # a tag, while it trains
BATCH = 1000  # metrics in one call: the server's limit

Point = tuple[str, int, int]  # of a metric: key, step, milliseconds


@dataclass(frozen=True)
class View:
    """All that MLflow shows of a training and its evaluations."""

    about: Mapping[str, Any]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: Mapping[Point, float]
    files: Mapping[str, bytes]  # artifacts, by path
    model: RowLSTM

    @staticmethod
    def read(training: Path, evaluations: Sequence[Path] = ()) -> "View":
        """That of the folders with the results of train and of evaluate, each time that it ran.

        Raises UserError where a file is not there or is damaged.
        """
        record = Training.read(training)
        about = record.about
        points = _curve(record.rows, record.timings)
        tags, files = _tags(about), _contents(training, "train")
        if about["patch"]:
            files["code.patch"] = about["patch"].encode()
        abouts = [read_json(evaluation / "run.json") for evaluation in evaluations]
        for folder, evaluated in sorted(
            zip(evaluations, abouts, strict=True), key=lambda pair: pair[1]["ended"]
        ):
            at = _milliseconds(evaluated["ended"])
            figures = flat(read_json(folder / "metrics.json"), "/")
            points |= {(EVALUATION + key, record.step, at): v for key, v in figures.items()}
            # the last one is what a run shows beside them
            tags |= {key: str(value) for key, value in evaluated["params"].items()}
            files |= _contents(folder, "evaluate") | {"params.yaml": _params_yaml(about, evaluated)}
        params = {key: str(value) for key, value in flat(about["params"], ".").items()}
        model = RowLSTM.load(training / "model.safetensors")
        return View(about, params, tags, points, files, model)


@dataclass(frozen=True)
class Differences:
    """What of a view a run does not have, and where it has something else that must not be."""

    tags: Mapping[str, str]
    points: Mapping[Point, float]
    files: Mapping[str, bytes]
    model: bool
    ending: bool
    contradictions: Sequence[str]  # what MLflow cannot change in a run

    def lines(self) -> list[str]:
        """Each in words."""
        lines = list(self.contradictions)
        if self.points:
            keys = ", ".join(sorted({key.partition("/")[0] for key, _, _ in self.points}))
            lines.append(f"{len(self.points):,} points of {keys} are not there")
        lines += [f"its tag {key} is not {value!r}" for key, value in self.tags.items()]
        lines += [f"its artifact {path} is another, or not there" for path in self.files]
        lines += ["its model is not there"] * self.model
        lines += ["its state or its end is another"] * self.ending
        return lines


class Run:
    """The MLflow run that shows one training."""

    def __init__(self, store: Store, about: Mapping[str, Any]) -> None:
        """Find the run of `about["training_id"]`, or make it. Raises TrackingError.

        `about` is what results/train/run.json has; while it trains, without `ended` and
        `model_sha256`.
        """
        self.store = store
        with store.errors(), one_process(store.lock):
            found = runs(store, f"tags.training_id = '{about['training_id']}'")
            run = found[0] if found else self._create(about)
            self.id: str = run.info.run_id
            params = flat(about["params"], ".").items()
            missing = [Param(k, str(v)) for k, v in params if k not in run.data.params]
            tags = [RunTag(*tag) for tag in _tags(about).items()]
            store.client.log_batch(self.id, params=missing, tags=tags)
            store.client.log_inputs(self.id, _inputs(about))
            if run.info.status != RunStatus.to_string(RunStatus.FINISHED):
                store.client.update_run(self.id, RunStatus.to_string(RunStatus.RUNNING))
            self._points = {_point(metric) for metric in metrics(store, run)}

    def log_rows(
        self, rows: Sequence[Mapping[str, Any]], timings: Sequence[Mapping[str, Any]]
    ) -> None:
        """Log rows of curve.csv and of timing.csv, a pair a step. Raises TrackingError."""
        with self.store.errors():
            self._log(_curve(rows, timings))

    def log_trainer(self, where: str) -> None:
        """Say where the process that trains can be found, until `finish`. Raises TrackingError."""
        with self.store.errors():
            self.store.client.set_tag(self.id, TRAINER, where)

    def finish(self, status: str, about: Mapping[str, Any]) -> None:
        """Close the run as of `about["ended"]`: FINISHED, FAILED, KILLED. Raises TrackingError."""
        with self.store.errors():
            client = self.store.client
            client.log_batch(self.id, tags=[RunTag(*tag) for tag in _tags(about).items()])
            close(self.store, client.get_run(self.id), status, _milliseconds(about["ended"]))

    def complete(self, view: View, lacks: Differences) -> None:
        """Log what the run lacks of a view. Raises TrackingError."""
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
                self._log_model(view)
            tags = [RunTag(*tag) for tag in lacks.tags.items()]
            self.store.client.log_batch(self.id, tags=tags)
            if lacks.ending:
                run = self.store.client.get_run(self.id)
                close(self.store, run, "FINISHED", _milliseconds(view.about["ended"]))

    def _create(self, about: Mapping[str, Any]) -> mlflow.entities.Run:
        return self.store.client.create_run(
            self.store.experiment_id,
            start_time=_milliseconds(about["started"]),
            tags={"training_id": about["training_id"]},
            run_name=about["name"],
        )

    def _log(self, points: Mapping[Point, float]) -> None:
        new = {point: value for point, value in points.items() if point not in self._points}
        batch = [Metric(key, value, at, step) for (key, step, at), value in new.items()]
        for start in range(0, len(batch), BATCH):
            self.store.client.log_batch(self.id, batch[start : start + BATCH])
        self._points |= new.keys()

    def _log_model(self, view: View) -> None:
        """Log the model as a torch.export program (pt2).

        It takes pixels (B, T, D) and answers with probabilities (B, C).
        """
        client, digest = self.store.client, view.about["model_sha256"]
        logged = _logged_model(self.store, self.id, digest) or client.create_logged_model(
            self.store.experiment_id,
            name="model",
            source_run_id=self.id,
            tags={"model_sha256": digest},
        )
        model = Classifier(view.model).eval()
        # a batch of one would freeze the size of batches
        example = torch.zeros((2, *view.about["image"]), dtype=torch.uint8)
        signature = ModelSignature(
            inputs=Schema([_any_batch(example)]), outputs=Schema([_any_batch(model(example))])
        )
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            # nn.LSTM's own bookkeeping, which the exported program has no use for
            warnings.filterwarnings("ignore", "The tensor attributes .*_flat_weights")
            path = Path(folder) / "model"
            mlflow.pytorch.save_model(
                model,
                str(path),
                mlflow_model=Model(
                    artifact_path=logged.artifact_location,
                    model_uuid=logged.model_id,
                    model_id=logged.model_id,
                    run_id=self.id,
                ),
                signature=signature,
                input_example=example.numpy(),
                serialization_format="pt2",
                # named here, since to infer them MLflow starts a process that loads the model
                pip_requirements=[f"{name}=={version(name)}" for name in ("torch", "numpy")],
            )
            client.log_model_artifacts(logged.model_id, str(path))
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        if logged.model_id not in _model_ids(client.get_run(self.id)):
            client.log_outputs(self.id, [LoggedModelOutput(logged.model_id, step=0)])


def project(store: Store, view: View) -> list[str]:
    """Bring the run of a training into line with its files; returns what was not, a line each.

    A run that contradicts them is deleted, as the user interface does it, and made anew. Raises
    TrackingError.
    """
    with store.errors():
        found = runs(store, f"tags.training_id = '{view.about['training_id']}'")
        if not found:
            lines = ["it has no run"]
        else:
            lacks = differences(store, found[0], view)
            lines = lacks.lines()
            if not lines:
                return []
            if lacks.contradictions:
                store.client.delete_run(found[0].info.run_id)
        run = Run(store, view.about)
        run.complete(view, differences(store, store.client.get_run(run.id), view))
        return lines


def differences(store: Store, run: mlflow.entities.Run, view: View) -> Differences:
    """Compare a run with what it is to show. Raises TrackingError."""
    with store.errors():
        there = metrics(store, run)
        points = {_point(metric) for metric in there}
        strangers = {
            metric.key
            for metric in there
            if metric.key in CURVE and view.points.get(_point(metric)) != metric.value
        }
        params = run.data.params
        # a later evaluation than those of the view stays: its files may be elsewhere
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
            not _has_model(store, run, view.about["model_sha256"]),
            (run.info.status, run.info.end_time)
            != (RunStatus.to_string(RunStatus.FINISHED), _milliseconds(view.about["ended"])),
            [
                *(
                    f"its parameter {key} is {params.get(key)}, not {value}"
                    for key, value in view.params.items()
                    if params.get(key) != value
                ),
                *(f"its {key} has points of no such training" for key in sorted(strangers)),
            ],
        )


def runs(store: Store, condition: str = "") -> list[mlflow.entities.Run]:
    """The runs in the store's experiment that a filter lets through, the earliest first."""
    found: list[mlflow.entities.Run] = []
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


def close(store: Store, run: mlflow.entities.Run, status: str, ended: int) -> None:
    """Set a run's state and its end, in milliseconds: nobody trains it any more."""
    if TRAINER in run.data.tags:
        store.client.delete_tag(run.info.run_id, TRAINER)
    store.client.set_terminated(run.info.run_id, status, ended)


def flat(tree: Mapping[str, Any], joint: str) -> dict[str, Any]:
    """A tree as one level, the keys on the way joined: `test/recall/7`, `model.hidden_size`."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= {f"{key}{joint}{name}": leaf for name, leaf in flat(value, joint).items()}
        else:
            leaves[key] = value
    return leaves


def _curve(
    rows: Sequence[Mapping[str, Any]], timings: Sequence[Mapping[str, Any]]
) -> dict[Point, float]:
    points: dict[Point, float] = {}
    for row, timing in zip(rows, timings, strict=True):
        values = {name: row[name] for name in CURVE}
        values |= {SYSTEM[k]: timing[k] for k in SYSTEM if timing[k] is not None}
        at = _milliseconds(timing["time"])
        points |= {(name, row["step"], at): value for name, value in values.items()}
    return points


def _point(metric: Metric) -> Point:
    return metric.key, metric.step, metric.timestamp


def metrics(store: Store, run: mlflow.entities.Run) -> list[Metric]:
    """All points of all metrics of a run."""
    histories = (store.client.get_metric_history(run.info.run_id, key) for key in run.data.metrics)
    return [metric for history in histories for metric in history]


def _contents(folder: Path, name: str) -> dict[str, bytes]:
    return {f"{name}/{path.name}": path.read_bytes() for path in sorted(folder.iterdir())}


def _other_files(
    store: Store, run: mlflow.entities.Run, expected: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Those of the expected artifacts that a run has not, or has with other bytes."""
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


def _logged_model(store: Store, run_id: str, model_sha256: str) -> LoggedModel | None:
    """The logged model of a run, or what an interruption left of it."""
    condition = f"source_run_id = '{run_id}' AND tags.model_sha256 = '{model_sha256}'"
    found = store.client.search_logged_models([store.experiment_id], condition, max_results=1)
    return found[0] if found else None


def _model_ids(run: mlflow.entities.Run) -> set[str]:
    return {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()


def _has_model(store: Store, run: mlflow.entities.Run, model_sha256: str) -> bool:
    logged = _logged_model(store, run.info.run_id, model_sha256)
    if not logged or logged.model_id not in _model_ids(run):
        return False
    folders = (None, "data")
    files = {
        file.path
        for folder in folders
        for file in store.client.list_logged_model_artifacts(logged.model_id, folder)
    }
    return logged.status == LoggedModelStatus.READY and files >= {"MLmodel", "data/model.pt2"}


# of run.json, what is no tag: it has a field of its own in MLflow, or is an artifact
NOT_TAGS = ("name", "started", "ended", "params", "versions", "patch", "data")
EDITABLE = ("mlflow.note.content",)  # people write into it


def _tags(about: Mapping[str, Any]) -> dict[str, str]:
    tags = {key: value for key, value in about.items() if key not in NOT_TAGS and value is not None}
    tags |= {f"version.{package}": number for package, number in about["versions"].items()}
    tags |= {"mlflow.source.git.commit": about["commit"]} if about["commit"] else {}
    tags |= {"mlflow.source.name": "src/train.py", "mlflow.note.content": _description(about)}
    return {key: str(value) for key, value in tags.items()}


def _params_yaml(about: Mapping[str, Any], evaluated: Mapping[str, Any]) -> bytes:
    """What params.yaml said: the parameters that both depend on."""
    sections = dict(about["params"])
    for key, value in evaluated["params"].items():
        section, _, name = key.partition(".")
        sections[section] = sections.get(section, {}) | {name: value}
    text: str = yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)
    return text.encode()


def _description(about: Mapping[str, Any]) -> str:
    """What a training was, in words: MLflow shows it above a run."""
    params, data = about["params"], about["data"]
    model, train = params["model"], params["train"]
    code = f"commit {about['commit'][:10]}" if about["commit"] else "code outside of git"
    changed = ", with changes that are in code.patch" if about["dirty"] else ""
    return (
        f"A dropout LSTM ({model['num_layers']} layers of {model['hidden_size']} units, dropout "
        f"{model['dropout']}) on {about['dataset']}, a pixel row at a time. {train['steps']:,} "
        f"steps of {train['batch_size']} out of {data['train']['images']:,} images, learning rate "
        f"{train['learning_rate']}, seed {params['seed']}, on {about['device']} with "
        f"{about['threads']} threads in {about['precision']}. Made by {code}{changed}."
    )


def _inputs(about: Mapping[str, Any]) -> list[DatasetInput]:
    """The row sequences, as MLflow data sets: a split each, found by its digest."""
    pixels = TensorSpec(np.dtype("uint8"), (-1, *about["image"]), "pixels")
    schema = {"mlflow_tensorspec": {"features": Schema([pixels]).to_json(), "targets": None}}
    return [
        DatasetInput(
            Dataset(
                name=f"{about['dataset']} {split}",
                digest=found["sha256"][:32],  # MLflow keeps 36 characters
                source_type="local",
                source=json.dumps({"uri": found["file"]}),
                schema=json.dumps(schema),
                profile=json.dumps({"num_rows": found["images"]}),
            ),
            [InputTag("mlflow.data.context", split)],
        )
        for split, found in about["data"].items()
    ]


def _any_batch(tensor: Tensor) -> TensorSpec:
    array = tensor.detach().numpy()
    return TensorSpec(np.dtype(array.dtype), (-1, *array.shape[1:]))


def _milliseconds(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1000)
