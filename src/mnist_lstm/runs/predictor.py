"""Find the model for `predict`: the champion's, the workspace's, a run's or a file's.

T rows of D pixels, C classes
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from mnist_lstm import UserError
from mnist_lstm.data.datasets import CLASSES, DATASETS
from mnist_lstm.files import sha256
from mnist_lstm.learning.model import RowLSTM
from mnist_lstm.pipeline.result_files import TABLES, RunRecord, parse_rows, parse_run
from mnist_lstm.runs.elsewhere import how_to_get, is_elsewhere
from mnist_lstm.runs.history import History, Partial, Result
from mnist_lstm.runs.recorded_files import EVALUATE, TRAIN
from mnist_lstm.runs.resolve import NO_RUN_YET, find, has_store, label

if TYPE_CHECKING:  # takes seconds: it imports MLflow
    from mnist_lstm.tracking.registry import Version
    from mnist_lstm.tracking.store import Store
    from mnist_lstm.tracking.stored_runs import StoredRun

WEIGHTS = f"{TRAIN}/model.safetensors"
BY_CLASS = "classes.csv"  # in the files of an evaluation
LARGEST = 2**20  # pixels of an image
# what Python and torch raise for parameters that are not those of a model
_NO_MODEL = LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError


@dataclass(frozen=True)
class Predictor:
    """A model with its data set, the size of its images (T, D) and the names of its C classes.

    `source` describes in words which model it is. `result` is the recorded result that has it.
    """

    model: RowLSTM
    source: str
    dataset: str
    image: tuple[int, int]
    classes: tuple[str, ...]
    result: Result | Partial | None = None


def of_run(history: History, text: str) -> Predictor:
    """The model of the run that `text` names.

    Raises UserError if the text fits no run or several.
    """
    result = find(history, text)
    return _of_result(history, result, f"of {label(result)}")


def of_file(history: History, path: Path) -> Predictor:
    """The model in a file that train wrote. A result here with the same weights names its data set.

    Without such a result, numbered classes are assumed, as in MNIST, and square images if the model
    does not name their height. Raises UserError if the file is not a model.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; --model takes a model.safetensors that train wrote")
    model = RowLSTM.load(path)
    if result := _with_weights(history, sha256(path)):
        return _of_result(history, result, f"{path}, the model of {label(result)}")
    pixels, count = model.config["input_size"], model.head.out_features
    rows = model.config.get("num_rows", pixels)  # of a model that reads columns
    source = (
        f"{path}; no run here has it, so it is assumed to take images like MNIST's, {rows}×{pixels}"
    )
    return Predictor(model, source, "mnist", (rows, pixels), tuple(map(str, range(count))))


def of_project(history: History) -> Predictor:
    """The champion's model; if MLflow has no champion, the workspace's model.

    Raises UserError if there is neither, if the champion's weights are not here, or if the
    workspace has the files of several runs.
    """
    if has_store(history.root):
        from mnist_lstm.tracking.registry import champion  # takes seconds: it imports MLflow
        from mnist_lstm.tracking.store import open_store

        store = open_store(history.root)
        if version := champion(store):
            if result := _with_weights(history, version.model_sha256):
                source = f"the champion, version {version.number}, of {label(result)}"
                return _of_result(history, result, source)
            if made := _made_elsewhere(history.root, store, version):
                raise UserError(f"the champion, version {version.number}, was {made}")
            raise UserError(
                f"the weights of the champion, version {version.number}, are not here (SHA-256 "
                f"{version.model_sha256[:12]}…): `dvc fetch --all-commits --run-cache` downloads "
                "what a DVC remote has; or name a model with --run or --model"
            )
    if history.mixed:
        raise UserError(f"there is no champion, and {history.mixed}")
    here = history.workspace
    if here and not here.record and history.has(here.training, WEIGHTS):
        raise UserError(
            f"there is no champion, and {TRAIN}/run.json is damaged or missing; `dvc repro` makes "
            "another; or name a model with --run or --model"
        )
    if not here or not here.record or not history.has(here.training, WEIGHTS):
        path = os.path.relpath(history.root / WEIGHTS)
        why = "name a run with --run, or `dvc repro`" if history.results else NO_RUN_YET
        raise UserError(f"there is no champion and no file {path}: {why}")
    return _of_result(history, here, f"the workspace's, of {here.name}; there is no champion")


def of_version(history: History, store: "Store", version: "Version") -> Predictor:
    """The model of a registered version. If its results are not here, MLflow's copy is taken.

    Raises UserError, TrackingError.
    """
    source = f"{version.title}, of {version.entrant.name}"
    if result := _with_weights(history, version.model_sha256):
        return _of_result(history, result, source)
    from mnist_lstm.tracking.registry import weights
    from mnist_lstm.tracking.stored_runs import artifact, runs

    with store.errors():
        found = runs(store, f"tags.training_id = '{version.training_id}'")
        described = artifact(store, found[0], f"{Path(TRAIN).name}/run.json") if found else None
    if described is None:
        what = "its run has no run.json in MLflow" if found else "its run is not in MLflow"
        raise _refused(source, what)
    named = weights(store, version)
    record = parse_run(described, f"run.json of {source}")
    try:
        model = _with(named, record)
    except _NO_MODEL as error:
        reason = " ".join(str(error).split())
        raise _refused(source, f"its run.json in MLflow is not of its model ({reason})") from None
    with TemporaryDirectory() as scratch:
        model.save(file := Path(scratch) / "model.safetensors")
        if sha256(file) != version.model_sha256:
            raise _refused(source, "its model in MLflow is not the one that was registered")
    # not those in data/raw: they may be of other images than whoever made it had
    named_there = _evaluated_names(store, found[0], source)
    classes = _names(record.dataset, model.head.out_features, named_there)
    return Predictor(model, source, record.dataset, record.image, classes)


def _evaluated_names(store: "Store", run: "StoredRun", source: str) -> Iterator[list[str]]:
    """The names of the classes at the last evaluation of a run in MLflow, if it has them.

    Raises UserError, TrackingError.
    """
    from mnist_lstm.tracking.stored_runs import artifact

    with store.errors():
        table = artifact(store, run, f"{Path(EVALUATE).name}/{BY_CLASS}")
    if table is not None:
        rows = parse_rows(table, f"{BY_CLASS} of {source}", TABLES[BY_CLASS])
        yield [str(row["class"]) for row in rows]


def _refused(source: str, what: str) -> UserError:
    return UserError(
        f"{source}: {what}, and its results are not here; get them from whoever made it, or "
        "promote another run"
    )


def _with(named: Mapping[str, torch.Tensor], record: RunRecord) -> RowLSTM:
    """The model that a record describes, with these weights, which are flat.

    Raises an error of _NO_MODEL if the two do not belong together.
    """
    rows, pixels = record.image
    if not 0 < rows * pixels <= LARGEST:
        raise ValueError(f"images of {rows}×{pixels} pixels")
    settings = {"num_rows": rows, **record.params["model"]}
    settings |= {"input_size": pixels, "num_classes": len(named["head.bias"])}
    if settings["num_layers"] > len(named):  # a huge number would take long to build
        raise ValueError(f"{len(named)} weights are not those of its parameters")
    with torch.device("meta"):  # takes no memory, whatever sizes the record claims
        expected = RowLSTM(**settings).state_dict()
    sizes = [{name: each.numel() for name, each in of.items()} for of in (expected, named)]
    if others := sizes[0].items() ^ sizes[1].items():
        name, _ = min(others)
        raise ValueError(f"its {name} is not that of its parameters")
    model = RowLSTM(**settings)
    model.load_state_dict(
        {name: named[name].reshape(each.shape) for name, each in expected.items()}
    )
    return model


def _made_elsewhere(root: Path, store: "Store", version: "Version") -> str | None:
    """Who made a version, and how to get its results; None if it was made here."""
    from mnist_lstm.tracking.stored_runs import runs

    with store.errors():
        for run in runs(store, f"tags.training_id = '{version.training_id}'"):
            if is_elsewhere(run.data.tags, root, store.uri):
                return how_to_get(run.data.tags, root)
    return None


def _of_result(history: History, result: Result | Partial, source: str) -> Predictor:
    record = result.record
    assert record
    with history.laid_out({WEIGHTS: result.training[WEIGHTS]}) as (folder,):
        model = RowLSTM.load(folder / Path(WEIGHTS).name)
        if sha256(folder / Path(WEIGHTS).name) != record.model_sha256:
            raise UserError(f"{WEIGHTS} of {record.name} is not the model that its run.json names")
    rows, pixels = record.image
    config = model.config
    fits = pixels == config["input_size"] and rows == config.get("num_rows", rows)
    if not fits or not 0 < rows * pixels <= LARGEST:
        raise UserError(f"{record.name}: images of {rows}×{pixels} pixels are not for its model")
    classes = _classes(history, result, model)
    return Predictor(model, source, record.dataset, (rows, pixels), classes, result)


def _with_weights(history: History, digest: str) -> Result | None:
    found = [result for result in history.results if result.record.model_sha256 == digest]
    return found[-1] if found else None


def _classes(history: History, result: Result | Partial, model: RowLSTM) -> tuple[str, ...]:
    # the user's own data set: take the class names of the evaluation, otherwise the present ones
    def known() -> Iterator[list[str]]:
        evaluation = result.evaluations[-1] if result.evaluations else {}
        yield [str(row["class"]) for row in history.rows(evaluation, BY_CLASS)]
        yield _present_names(history.root)

    return _names(result.dataset, model.head.out_features, known())


def _present_names(root: Path) -> list[str]:
    path = root / "data" / "raw" / CLASSES
    try:
        return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    except UnicodeDecodeError as error:
        raise UserError(
            f"{os.path.relpath(path)}: not UTF-8 text ({error.reason} at byte {error.start}); "
            "`dvc repro fetch` makes it again"
        ) from None


def _names(dataset: str | None, count: int, known: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The names of the classes: the data set's, the first fitting ones of `known`, or numbers.

    `known` is read only as far as it is needed.
    """
    of_dataset = DATASETS[dataset].classes if dataset in DATASETS else ()
    numbers = [str(number) for number in range(count)]
    found = chain([of_dataset], known, [numbers])
    return next(tuple(names) for names in found if len(names) == count)
