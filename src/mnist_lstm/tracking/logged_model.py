"""Log the model of a run to MLflow: a torch.export program (pt2), without pickle."""

import json
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import mlflow.artifacts
import mlflow.pytorch
import numpy as np
import torch
from mlflow.entities import FileInfo, LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import Tensor

from mnist_lstm.learning.model import Classifier
from mnist_lstm.tracking.store import NOTE, Store, is_server
from mnist_lstm.tracking.view import MeasuredOn, Point, ShownModel, View, description

EARLIER_NAME = "model"  # in earlier versions, the models of all runs were called so
# MLflow refuses them in a model's name; a point is mostly a decimal point
REPLACED = str.maketrans({".": "\u00b7", "/": "-", ":": "-", "%": "-", '"': "", "'": ""})


def log_model(store: Store, run: mlflow.entities.Run, view: View, shown: ShownModel) -> None:
    """Log a model as a torch.export program (pt2), under the name of its run.

    The program takes pixels (B, T, D) and returns probabilities (B, C).
    """
    client, digest, run_id = store.client, shown.sha256, run.info.run_id
    logged = logged_model(store, run_id, digest) or client.create_logged_model(
        store.experiment_id,
        name=str(run.info.run_name).translate(REPLACED) + "-best" * shown.is_best,
        source_run_id=run_id,
        tags={
            NOTE: _description(view, shown),
            "dataset": view.about.dataset,
            "model_sha256": digest,
        },
        params=dict(view.params),
        model_type=view.params.get("model.cell", "lstm").upper(),
    )
    model = Classifier(shown.weights).eval()
    # two images: with a batch of one, the exported program would accept no other batch size
    example = torch.zeros((2, *view.about.image), dtype=torch.uint8)
    signature = ModelSignature(
        inputs=Schema([_any_batch(example)]), outputs=Schema([_any_batch(model(example))])
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # the warning is about internals of nn.LSTM that the exported program does not need
        warnings.filterwarnings("ignore", "The tensor attributes .*_flat_weights")
        path = Path(folder) / "model"
        mlflow.pytorch.save_model(
            model,
            str(path),
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
                run_id=run_id,
            ),
            signature=signature,
            input_example=example.numpy(),
            serialization_format="pt2",
            # listed here, because MLflow would start a process that loads the model to infer them
            pip_requirements=[f"{name}=={version(name)}" for name in ("torch", "numpy")],
        )
        client.log_model_artifacts(logged.model_id, str(path))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    if logged.model_id not in _model_ids(client.get_run(run_id)):
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=shown.step)])


def logged_model(store: Store, run_id: str, model_sha256: str) -> LoggedModel | None:
    """The logged model of a run; None if there is none. An interruption may leave it incomplete."""
    found = models_of(store, run_id, f" AND tags.model_sha256 = '{model_sha256}'")
    return found[0] if found else None


def models_of(store: Store, run_id: str, condition: str = "") -> list[LoggedModel]:
    """The logged models of a run: the last one, and the best one if that was kept."""
    condition = f"source_run_id = '{run_id}'{condition}"
    return list(store.client.search_logged_models([store.experiment_id], condition))


def weights(uri: str) -> dict[str, Tensor]:
    """The weights in a logged model, each flattened to one dimension, by their names in RowLSTM.

    They are read from the archive as float32 numbers: nothing is unpickled. Raises
    MlflowException if the file is not there, and zipfile.BadZipFile or KeyError if it is damaged.
    """
    place = "model/data/weights/"
    with tempfile.TemporaryDirectory() as folder:
        file = mlflow.artifacts.download_artifacts(f"{uri}/data/model.pt2", dst_path=folder)
        with zipfile.ZipFile(file) as archive:
            listed = json.loads(archive.read(f"{place}model_weights_config.json"))["config"]
            return {
                name.removeprefix("model."): torch.from_numpy(
                    np.frombuffer(archive.read(place + entry["path_name"]), "<f4").copy()
                )
                for name, entry in listed.items()
            }


def links(logged: LoggedModel | None, shown: ShownModel) -> dict[Point, MeasuredOn]:
    """The points of a model that its logged model lacks, each with its data set."""
    metrics = logged.metrics if logged else None
    there = {
        ((metric.key, metric.step, metric.timestamp), (metric.dataset_name, metric.dataset_digest))
        for metric in metrics or []
    }
    return {point: on for point, on in shown.measured.items() if (point, on) not in there}


def log_links(
    store: Store,
    run_id: str,
    view: View,
    shown: ShownModel,
    missing: Mapping[Point, MeasuredOn],
) -> None:
    """Log points of a run's metrics for one of its logged models and their data sets, too."""
    logged = logged_model(store, run_id, shown.sha256)
    if logged:
        batch = [
            Metric(
                *(key, view.points[key, step, at], at, step),
                model_id=logged.model_id,
                dataset_name=name,
                dataset_digest=digest,
                run_id=run_id,
            )
            for (key, step, at), (name, digest) in missing.items()
        ]
        store.client.log_batch(run_id, batch)


def _model_ids(run: mlflow.entities.Run) -> set[str]:
    return {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()


def has_model(store: Store, run: mlflow.entities.Run, logged: LoggedModel | None) -> bool:
    """Whether a run has this logged model, and has it complete."""
    if not logged or logged.model_id not in _model_ids(run):
        return False
    # on a server, a request is saved: MLmodel was uploaded before the model was marked as ready
    wanted = {"data": "model.pt2"} | ({} if is_server(store.uri) else {"": "MLmodel"})
    return logged.status == LoggedModelStatus.READY and all(
        name in {Path(file.path).name for file in _listed(store, logged, folder)}
        for folder, name in wanted.items()
    )


def _listed(store: Store, logged: LoggedModel, folder: str) -> list[FileInfo]:
    # by its address: the client would look up the model first
    address = f"{logged.artifact_location}/{folder}".rstrip("/")
    return list(mlflow.artifacts.list_artifacts(address, tracking_uri=store.uri))


def _description(view: View, shown: ShownModel) -> str:
    rows, pixels = view.about.image
    best = ""
    if shown.is_best:
        best = (
            f"This is the model at step {shown.step:,}, which had the highest validation accuracy. "
        )
    return (
        f"{best}{description(view.about)} It takes pixels from 0 to 255, of shape "
        f"(N, {rows}, {pixels}), and returns probabilities."
    )


def _any_batch(tensor: Tensor) -> TensorSpec:
    array = tensor.detach().numpy()
    return TensorSpec(np.dtype(array.dtype), (-1, *array.shape[1:]))
