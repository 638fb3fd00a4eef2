"""Log the model of a run to MLflow: a torch.export program (pt2), without pickle. Read it back.

This imports torch. What only looks models up imports tracking/logged_model instead.
"""

import json
import tempfile
import warnings
import zipfile
import zlib
from importlib.metadata import version
from pathlib import Path

import mlflow.artifacts
import mlflow.pytorch
import numpy as np
import torch
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Run
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import Tensor

from mnist_lstm import UserError
from mnist_lstm.learning.model import Classifier, RowLSTM
from mnist_lstm.tracking.logged_model import logged_model, model_ids
from mnist_lstm.tracking.store import NOTE, Store
from mnist_lstm.tracking.view import ShownModel, View, description

# MLflow refuses them in a model's name; a point is mostly a decimal point
REPLACED = str.maketrans({".": "\u00b7", "/": "-", ":": "-", "%": "-", '"': "", "'": ""})
# what zipfile, zlib, json and numpy raise for a file that is no exported program
_NO_PROGRAM = (
    *(zipfile.BadZipFile, zlib.error, EOFError, LookupError, TypeError, AttributeError),
    *(ValueError, RuntimeError),
)


class DamagedModel(Exception):
    """The file of a logged model is not an exported program."""


def model_of(view: View, shown: ShownModel) -> RowLSTM:
    """A model of a view. Raises UserError if its file is none that this code can load."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, shown.file)
        path.write_bytes(view.files[f"train/{shown.file}"])
        try:
            return RowLSTM.load(path)
        except UserError as error:
            raise UserError(str(error).replace(folder, "results/train")) from None


def log_model(store: Store, run: Run, view: View, shown: ShownModel) -> None:
    """Log a model as a torch.export program (pt2), under the name of its run.

    The program takes pixels (B, T, D) and returns probabilities (B, C). Raises UserError if the
    file of its weights is no model.
    """
    client, digest, run_id = store.client, shown.sha256, run.info.run_id
    model = Classifier(model_of(view, shown)).eval()
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
    # two images: with a batch of one, the exported program would accept no other batch size
    example = torch.zeros((2, *view.about.image), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        signature = ModelSignature(
            inputs=Schema([_any_batch(example)]), outputs=Schema([_any_batch(model(example))])
        )
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
    if logged.model_id not in model_ids(client.get_run(run_id)):
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=shown.step)])


def weights_of(uri: str) -> dict[str, Tensor]:
    """The weights in a logged model, each flattened to one dimension, by their names in RowLSTM.

    They are read from the archive as float32 numbers: nothing is unpickled. Raises
    MlflowException if the file is not there, and DamagedModel if it is damaged.
    """
    place = "model/data/weights/"
    with tempfile.TemporaryDirectory() as folder:
        file = mlflow.artifacts.download_artifacts(f"{uri}/data/model.pt2", dst_path=folder)
        try:
            with zipfile.ZipFile(file) as archive:
                listed = json.loads(archive.read(f"{place}model_weights_config.json"))["config"]
                return {
                    name.removeprefix("model."): torch.from_numpy(
                        np.frombuffer(archive.read(place + entry["path_name"]), "<f4").copy()
                    )
                    for name, entry in listed.items()
                }
        except _NO_PROGRAM as error:
            raise DamagedModel(" ".join(str(error).split())) from None


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
