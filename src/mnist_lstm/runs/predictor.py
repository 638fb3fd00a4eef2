"""The model that answers: the champion, the workspace's, a run's or a file's, with what it is for.

T rows of D pixels, C classes
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mnist_lstm import UserError
from mnist_lstm.data.datasets import CLASSES, DATASETS
from mnist_lstm.files import sha256
from mnist_lstm.learning.model import RowLSTM
from mnist_lstm.pipeline.result_files import read_json
from mnist_lstm.runs.history import TRAIN, History, Result
from mnist_lstm.runs.resolve import NO_RUN_YET, find, label

WEIGHTS = f"{TRAIN}/model.safetensors"


@dataclass(frozen=True)
class Chosen:
    """A model with its data set, the size of its images (T, D) and the names of its C classes.

    `source` says in words which one it is.
    """

    model: RowLSTM
    source: str
    dataset: str
    image: tuple[int, int]
    classes: tuple[str, ...]


def of_run(root: Path, text: str) -> Chosen:
    """That of the run which `text` is a name, an id or an experiment of.

    Raises UserError where no run is called so, or several may be.
    """
    history = History(root)
    result = find(history, text)
    return _of_result(history, result, f"that of {label(result)}")


def of_file(root: Path, path: Path) -> Chosen:
    """That of a file as train writes it; a result of this project with these weights says the rest.

    Without one, it is taken for a model of MNIST's kind: of square images, and classes by number.
    Raises UserError where the file is none.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; --model takes a model.safetensors as train writes")
    model = RowLSTM.load(path)
    history = History(root)
    if result := _with_weights(history, sha256(path)):
        return _of_result(history, result, f"{path}, which is that of {label(result)}")
    side, count = next(iter(model.layers)).input_size, model.head.out_features
    source = f"{path}; no run here has it: taken for one of images like MNIST's, {side}×{side}"
    return Chosen(model, source, "mnist", (side, side), tuple(map(str, range(count))))


def of_project(root: Path) -> Chosen:
    """The champion, where the MLflow store has one, else the workspace's.

    Raises UserError where there is neither, or the champion's weights are not here.
    """
    history = History(root)
    if os.environ.get("MLFLOW_TRACKING_URI") or (root / "mlflow.db").is_file():
        from mnist_lstm.tracking.registry import champion  # seconds, with MLflow
        from mnist_lstm.tracking.store import open_store

        if version := champion(open_store(root)):
            if result := _with_weights(history, version.model_sha256):
                source = f"the champion, version {version.number}: that of {label(result)}"
                return _of_result(history, result, source)
            raise UserError(
                f"the champion, version {version.number}, has weights that are not here (SHA-256 "
                f"{version.model_sha256[:12]}…): `dvc fetch --all-commits --run-cache` brings what "
                "a DVC remote has; or name a model with --run or --model"
            )
    weights = root / WEIGHTS
    if not weights.is_file():
        raise UserError(f"no champion, and {os.path.relpath(weights)} is not there: {NO_RUN_YET}")
    about = read_json(root / TRAIN / "run.json")
    source = f"the workspace's, that of {about['name']}; there is no champion"
    model = RowLSTM.load(weights)
    return Chosen(model, source, *_purpose(history, history.workspace, about, model))


def _of_result(history: History, result: Result, source: str) -> Chosen:
    with TemporaryDirectory() as scratch:
        history.lay_out({WEIGHTS: result.training[WEIGHTS]}, Path(scratch))
        model = RowLSTM.load(Path(scratch) / Path(WEIGHTS).name)
    return Chosen(model, source, *_purpose(history, result, result.about, model))


def _with_weights(history: History, digest: str) -> Result | None:
    found = [result for result in history.results if result.about.get("model_sha256") == digest]
    return found[-1] if found else None


def _purpose(
    history: History, result: Result | None, about: Mapping[str, Any], model: RowLSTM
) -> tuple[str, tuple[int, int], tuple[str, ...]]:
    """Data set, size of images and names of classes."""
    rows, pixels = about["image"]
    dataset, count = about["dataset"], model.head.out_features
    if dataset in DATASETS:
        return dataset, (rows, pixels), DATASETS[dataset].classes
    # the user's own: as they were called when it was evaluated, else as they are called now
    evaluation = result.evaluations[-1] if result and result.evaluations else {}
    names = [str(row["class"]) for row in history.rows(evaluation, "classes.csv")]
    listed = history.root / "data" / "raw" / CLASSES
    if len(names) != count and listed.is_file():
        names = listed.read_text(encoding="utf-8").splitlines()
    if len(names) != count:
        names = [str(number) for number in range(count)]
    return dataset, (rows, pixels), tuple(names)
