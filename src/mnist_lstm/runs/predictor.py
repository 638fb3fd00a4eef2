"""Find the model for `predict`: the champion's, the workspace's, a run's or a file's.

T rows of D pixels, C classes
"""

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mnist_lstm import UserError
from mnist_lstm.data.datasets import CLASSES, DATASETS
from mnist_lstm.files import sha256
from mnist_lstm.learning.model import RowLSTM
from mnist_lstm.pipeline.result_files import RunRecord, read_run
from mnist_lstm.runs.history import TRAIN, History, Partial, Result
from mnist_lstm.runs.resolve import NO_RUN_YET, find, has_store, label

WEIGHTS = f"{TRAIN}/model.safetensors"


@dataclass(frozen=True)
class Predictor:
    """A model with its data set, the size of its images (T, D) and the names of its C classes.

    `source` describes in words which model it is.
    """

    model: RowLSTM
    source: str
    dataset: str
    image: tuple[int, int]
    classes: tuple[str, ...]


def of_run(root: Path, text: str) -> Predictor:
    """The model of the run that `text` names.

    Raises UserError if the text fits no run or several.
    """
    history = History(root)
    result = find(history, text)
    return _of_result(history, result, f"of {label(result)}")


def of_file(root: Path, path: Path) -> Predictor:
    """The model in a file that train wrote. A result here with the same weights names its data set.

    Without such a result, square images and numbered classes are assumed, as in MNIST. Raises
    UserError if the file is not a model.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; --model takes a model.safetensors that train wrote")
    model = RowLSTM.load(path)
    history = History(root)
    if result := _with_weights(history, sha256(path)):
        return _of_result(history, result, f"{path}, the model of {label(result)}")
    side, count = next(iter(model.layers)).input_size, model.head.out_features
    source = (
        f"{path}; no run here has it, so it is assumed to take images like MNIST's, {side}×{side}"
    )
    return Predictor(model, source, "mnist", (side, side), tuple(map(str, range(count))))


def of_project(root: Path) -> Predictor:
    """The champion's model; if MLflow has no champion, the workspace's model.

    Raises UserError if there is neither, or if the champion's weights are not here.
    """
    history = History(root)
    if has_store(root):
        from mnist_lstm.tracking.registry import champion  # takes seconds: it imports MLflow
        from mnist_lstm.tracking.store import open_store

        if version := champion(open_store(root)):
            if result := _with_weights(history, version.model_sha256):
                source = f"the champion, version {version.number}, of {label(result)}"
                return _of_result(history, result, source)
            raise UserError(
                f"the weights of the champion, version {version.number}, are not here (SHA-256 "
                f"{version.model_sha256[:12]}…): `dvc fetch --all-commits --run-cache` downloads "
                "what a DVC remote has; or name a model with --run or --model"
            )
    weights = root / WEIGHTS
    if not weights.is_file():
        raise UserError(
            f"there is no champion and no file {os.path.relpath(weights)}: {NO_RUN_YET}"
        )
    record = read_run(root / TRAIN / "run.json")
    source = f"the workspace's, of {record.name}; there is no champion"
    model = RowLSTM.load(weights)
    return Predictor(model, source, *_purpose(history, history.workspace, record, model))


def _of_result(history: History, result: Result, source: str) -> Predictor:
    with TemporaryDirectory() as scratch:
        history.lay_out({WEIGHTS: result.training[WEIGHTS]}, Path(scratch))
        model = RowLSTM.load(Path(scratch) / Path(WEIGHTS).name)
    return Predictor(model, source, *_purpose(history, result, result.record, model))


def _with_weights(history: History, digest: str) -> Result | None:
    found = [result for result in history.results if result.record.model_sha256 == digest]
    return found[-1] if found else None


def _purpose(
    history: History, result: Result | Partial | None, record: RunRecord, model: RowLSTM
) -> tuple[str, tuple[int, int], tuple[str, ...]]:
    """The data set of a model, the size of its images and the names of its classes."""
    rows, pixels = record.image
    dataset, count = record.dataset, model.head.out_features
    if dataset in DATASETS:
        return dataset, (rows, pixels), DATASETS[dataset].classes
    # the user's own data set: take the class names of the evaluation, otherwise the present ones
    evaluation = result.evaluations[-1] if result and result.evaluations else {}
    names = [str(row["class"]) for row in history.rows(evaluation, "classes.csv")]
    listed = history.root / "data" / "raw" / CLASSES
    if len(names) != count and listed.is_file():
        names = listed.read_text(encoding="utf-8").splitlines()
    if len(names) != count:
        names = [str(number) for number in range(count)]
    return dataset, (rows, pixels), tuple(names)
