"""Log the model of a run to MLflow: a torch.export program (pt2), without pickle."""

import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import mlflow.pytorch
import numpy as np
import torch
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import Tensor

from mnist_lstm.learning.model import Classifier
from mnist_lstm.tracking.store import Store
from mnist_lstm.tracking.view import View


def log_model(store: Store, run_id: str, view: View) -> None:
    """Log the model as a torch.export program (pt2).

    The program takes pixels (B, T, D) and returns probabilities (B, C).
    """
    client, digest = store.client, view.about.model_sha256
    logged = logged_model(store, run_id, digest) or client.create_logged_model(
        store.experiment_id,
        name="model",
        source_run_id=run_id,
        tags={"model_sha256": digest},
    )
    model = Classifier(view.model).eval()
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
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])


def logged_model(store: Store, run_id: str, model_sha256: str) -> LoggedModel | None:
    """The logged model of a run; None if there is none. An interruption may leave it incomplete."""
    condition = f"source_run_id = '{run_id}' AND tags.model_sha256 = '{model_sha256}'"
    found = store.client.search_logged_models([store.experiment_id], condition, max_results=1)
    return found[0] if found else None


def _model_ids(run: mlflow.entities.Run) -> set[str]:
    return {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()


def has_model(store: Store, run: mlflow.entities.Run, model_sha256: str) -> bool:
    """Whether a run has a complete logged model of these weights."""
    logged = logged_model(store, run.info.run_id, model_sha256)
    if not logged or logged.model_id not in _model_ids(run):
        return False
    folders = (None, "data")
    files = {
        file.path
        for folder in folders
        for file in store.client.list_logged_model_artifacts(logged.model_id, folder)
    }
    return logged.status == LoggedModelStatus.READY and files >= {"MLmodel", "data/model.pt2"}


def _any_batch(tensor: Tensor) -> TensorSpec:
    array = tensor.detach().numpy()
    return TensorSpec(np.dtype(array.dtype), (-1, *array.shape[1:]))
