"""MLflow as a view of a training's files, which can be made anew from them; its only importer.

A training is one run, found by its training_id. What is there already is never logged again, so
that showing the same files twice changes nothing, and a run that was half logged is completed.
"""

import fcntl
import json
import logging
import os
import re
import sqlite3
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

# said before the import, which reads them: no usage reports, and a server that is away must not
# hold up a training (by default each call is tried for minutes)
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")

# said before the first use: the tables of a fresh store are made without a word, and what goes
# wrong with them is said once, by whoever catches it
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

import mlflow
import mlflow.pytorch
import numpy as np
import torch
from alembic.util import CommandError
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunStatus,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from sqlalchemy.exc import SQLAlchemyError
from torch import Tensor, nn

from mnist_lstm import UserError
from mnist_lstm.model import Classifier, RowLSTM
from mnist_lstm.results import Training, read_json

EXPERIMENT = "mnist-lstm"
CURVE = ("train_accuracy", "validation_accuracy", "test_accuracy", "train_loss")
SYSTEM = {
    "memory_megabytes": "system/peak_memory_usage_megabytes",
    "processor_percent": "system/process_cpu_utilization_percentage",
    "gpu_memory_megabytes": "system/gpu_0_memory_usage_megabytes",
    "gpu_percent": "system/gpu_0_utilization_percentage",
}
BATCH = 1000  # metrics in one call: the server's limit


class TrackingError(UserError):
    """The store cannot be reached or does not take what it is given."""


@dataclass(frozen=True)
class Store:
    """An MLflow store and the experiment in it that holds this project's runs."""

    uri: str
    client: mlflow.MlflowClient
    experiment_id: str


def uri_of(root: Path) -> str:
    """Where the store of a project is: MLFLOW_TRACKING_URI, else mlflow.db in its folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve() / 'mlflow.db'}"


def open_store(root: Path) -> Store:
    """The store of the project in `root`, with its experiment; both are made where missing.

    Raises TrackingError where the store does not open.
    """
    uri = uri_of(root)
    with _errors_of(uri), _only_one_process(root / ".mlflow.lock"):
        _try_sqlite(uri)
        client = mlflow.MlflowClient(uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            remote = uri.split(":")[0] in ("http", "https")
            location = None if remote else (root.resolve() / "mlruns").as_uri()
            return Store(uri, client, client.create_experiment(EXPERIMENT, location))
        return Store(uri, client, experiment.experiment_id)


class Run:
    """The MLflow run that shows one training.

    `about` is what results/train/run.json has; while it trains, without `ended` and `model_sha256`.
    """

    def __init__(self, store: Store, about: Mapping[str, Any]) -> None:
        """Find the run of `about["training_id"]`, or make it. Raises TrackingError."""
        self.store = store
        with self._errors():
            found = store.client.search_runs(
                [store.experiment_id],
                f"tags.training_id = '{about['training_id']}'",
                run_view_type=ViewType.ACTIVE_ONLY,
                max_results=1,
            )
            run = found[0] if found else self._create(about)
            self.id: str = run.info.run_id
            self._logged = {
                (metric.key, metric.step, metric.timestamp)
                for key in run.data.metrics
                for metric in store.client.get_metric_history(self.id, key)
            }
            params = flat(about["params"], ".").items()
            self._log(
                params=[Param(k, str(v)) for k, v in params if k not in run.data.params],
                tags=_tags(about),
            )
            store.client.log_inputs(self.id, _inputs(about))
            if run.info.status != RunStatus.to_string(RunStatus.FINISHED):
                store.client.update_run(self.id, RunStatus.to_string(RunStatus.RUNNING))

    def log_rows(
        self, rows: Sequence[Mapping[str, Any]], timings: Sequence[Mapping[str, Any]]
    ) -> None:
        """Log rows of curve.csv and of timing.csv, a pair a step. Raises TrackingError."""
        metrics = []
        for row, timing in zip(rows, timings, strict=True):
            at = _milliseconds(timing["time"])
            values = {name: row[name] for name in CURVE}
            values |= {SYSTEM[k]: timing[k] for k in SYSTEM if timing[k] is not None}
            metrics += [Metric(name, value, at, row["step"]) for name, value in values.items()]
        with self._errors():
            self._log(metrics=metrics)

    def log_evaluation(
        self, figures: Mapping[str, float], about: Mapping[str, Any], step: int
    ) -> None:
        """Log an evaluation's figures under `evaluation/`, as of when it ended.

        `about` is what results/evaluate/run.json has. A later evaluation is added behind an
        earlier one. Raises TrackingError.
        """
        at = _milliseconds(about["ended"])
        metrics = [Metric(f"evaluation/{key}", value, at, step) for key, value in figures.items()]
        tags = [RunTag(key, str(value)) for key, value in about["params"].items()]
        with self._errors():
            self._log(metrics=metrics, tags=tags)

    def log_files(self, paths: Mapping[Path, str]) -> None:
        """Log files, each into the artifact folder named for it. Raises TrackingError."""
        with self._errors():
            for path, folder in paths.items():
                self.store.client.log_artifact(self.id, str(path), folder or None)

    def log_patch(self, patch: str) -> None:
        """Log what makes the code that ran out of the commit's. Raises TrackingError."""
        with self._errors():
            self.store.client.log_text(self.id, patch, "code.patch")

    def log_model(self, model: nn.Module, example: Tensor, model_sha256: str) -> None:
        """Log a model as a torch.export program (pt2), unless that very model is there.

        `model` takes pixels (B, T, D) on the CPU and answers with probabilities (B, C); `example`
        is a batch of them: two at least, for one would freeze the batch size. Raises TrackingError.
        """
        with self._errors():
            if self._has_model(model_sha256):
                return
            model = model.cpu().eval()
            answer = model(example)
            signature = ModelSignature(
                inputs=Schema([_any_batch(example)]), outputs=Schema([_any_batch(answer)])
            )
            client = self.store.client
            tags = {"model_sha256": model_sha256}
            logged = client.create_logged_model(
                self.store.experiment_id, name="model", source_run_id=self.id, tags=tags
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
            client.log_outputs(self.id, [LoggedModelOutput(logged.model_id, step=0)])

    def finish(self, status: str, about: Mapping[str, Any]) -> None:
        """Close the run as of `about["ended"]`: FINISHED, FAILED, KILLED. Raises TrackingError."""
        with self._errors():
            self._log(tags=_tags(about))
            self.store.client.set_terminated(self.id, status, _milliseconds(about["ended"]))

    def _create(self, about: Mapping[str, Any]) -> mlflow.entities.Run:
        return self.store.client.create_run(
            self.store.experiment_id,
            start_time=_milliseconds(about["started"]),
            tags={"training_id": about["training_id"]},
            run_name=about["name"],
        )

    def _log(
        self,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
    ) -> None:
        new = [m for m in metrics if (m.key, m.step, m.timestamp) not in self._logged]
        for start in range(0, max(len(new), 1), BATCH):
            self.store.client.log_batch(self.id, new[start : start + BATCH], params, tags)
            params, tags = (), ()
        self._logged |= {(m.key, m.step, m.timestamp) for m in new}

    def _has_model(self, model_sha256: str) -> bool:
        outputs = self.store.client.get_run(self.id).outputs
        models = [
            self.store.client.get_logged_model(output.model_id)
            for output in (outputs.model_outputs if outputs else [])
        ]
        return any(
            model.tags.get("model_sha256") == model_sha256 and model.status == "READY"
            for model in models
        )

    def _errors(self) -> Any:
        return _errors_of(self.store.uri)


class Follower:
    """A run shown while it trains. The first failure of the store is reported and ends the showing:

    the training goes on, and the next projection of its files completes the run.
    """

    def __init__(self, root: Path, about: Mapping[str, Any], report: Callable[[str], None]) -> None:
        self._report = report
        self._run: Run | None = None
        with self._reporting():
            self._run = Run(open_store(root), about)

    def log_rows(
        self, rows: Sequence[Mapping[str, Any]], timings: Sequence[Mapping[str, Any]]
    ) -> None:
        """Show rows of curve.csv and of timing.csv, a pair a step."""
        with self._reporting():
            if self._run:
                self._run.log_rows(rows, timings)

    def finish(self, status: str, about: Mapping[str, Any]) -> None:
        """Close the run: FINISHED, FAILED or KILLED, as of `about["ended"]`."""
        with self._reporting():
            if self._run:
                self._run.finish(status, about)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except TrackingError as error:
            self._run = None
            self._report(f"{error}; training goes on, and evaluate will try again")


def project(root: Path, training: Path, evaluation: Path, params_yaml: Path) -> str:
    """Bring the run of a training into line with its files; returns the store's address, to show.

    `training` and `evaluation` are the folders of those stages' results. Raises TrackingError.
    """
    record, figures = Training.read(training), read_json(evaluation / "metrics.json")
    run = Run(open_store(root), record.about)
    run.log_rows(record.rows, record.timings)
    run.log_evaluation(flat(figures, "/"), read_json(evaluation / "run.json"), record.step)
    run.log_files(
        {path: folder.name for folder in (training, evaluation) for path in folder.iterdir()}
        | {params_yaml: ""}
    )
    if patch := record.about["patch"]:
        run.log_patch(patch)
    model = RowLSTM.load(training / "model.safetensors")
    example = torch.zeros((2, *record.about["image"]), dtype=torch.uint8)
    run.log_model(Classifier(model), example, record.about["model_sha256"])
    run.finish("FINISHED", record.about)
    return _shown(run.store.uri)


def flat(tree: Mapping[str, Any], joint: str) -> dict[str, Any]:
    """A tree as one level, the keys on the way joined: `test/recall/7`, `model.hidden_size`."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= {f"{key}{joint}{name}": leaf for name, leaf in flat(value, joint).items()}
        else:
            leaves[key] = value
    return leaves


# of run.json, what is no tag: it has a field of its own in MLflow, or is an artifact
NOT_TAGS = ("name", "started", "ended", "params", "versions", "patch", "data")


def _tags(about: Mapping[str, Any]) -> list[RunTag]:
    tags = {key: value for key, value in about.items() if key not in NOT_TAGS and value is not None}
    tags |= {f"version.{package}": number for package, number in about["versions"].items()}
    tags |= {"mlflow.source.git.commit": about["commit"]} if about["commit"] else {}
    tags |= {"mlflow.source.name": "src/train.py", "mlflow.note.content": _description(about)}
    return [RunTag(key, str(value)) for key, value in tags.items()]


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


@contextmanager
def _errors_of(uri: str) -> Iterator[None]:
    try:
        yield
    except (
        MlflowException,
        SQLAlchemyError,  # not every one of them arrives as MLflow's own
        CommandError,
        sqlite3.Error,
        ModuleNotFoundError,  # a database's driver
        OSError,
    ) as error:
        raise TrackingError(f"MLflow store {_shown(uri)}: {_why(error, uri)}") from error


def _shown(uri: str) -> str:
    """An address as it may be printed: without user name and password."""
    return re.sub(r"//[^/]*@", "//…@", uri)


def _why(error: BaseException, uri: str) -> str:
    """What is wrong with a store and what to do; the innermost error has the fewest words."""
    inner = error
    while below := inner.__cause__ or inner.__context__:
        inner = below
    if isinstance(inner, OSError):
        where = f"{inner.filename}: " if inner.filename else ""
        hint = "; see that the server is up and its address right" if uri.startswith("http") else ""
        return f"{where}{inner.strerror or inner}{hint}"
    if isinstance(inner, sqlite3.OperationalError):
        return f"{inner}; see that the disk has room and that you may write there"
    if isinstance(inner, sqlite3.Error):
        return f"{inner}; move that file away, and a new one is made"
    if isinstance(error, CommandError):
        return f"another version of MLflow made it ({error}); move it away, and a new one is made"
    if isinstance(error, ModuleNotFoundError):
        return f"it takes the package {error.name}, which is not here; install it, or use a server"
    return textwrap.shorten(str(error), 300, placeholder=" …")


def _try_sqlite(uri: str) -> None:
    """Open an SQLite file once: one that does not open, MLflow tries for minutes, with warnings."""
    scheme, _, path = uri.partition(":///")
    if scheme == "sqlite" and "?" not in path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)  # as MLflow does
        with closing(sqlite3.connect(Path(path).absolute(), timeout=60)) as database:
            database.execute("PRAGMA schema_version")


@contextmanager
def _only_one_process(path: Path) -> Iterator[None]:
    """Two processes that open a fresh SQLite store at once would both try to build its tables."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
