"""Evaluate the trained model on validation and test images, and log everything to MLflow.

Run: dvc repro evaluate
"""

from mnist_lstm.pipeline import signals

if __name__ == "__main__":
    signals.watch()  # before the other imports, which take seconds
    from mnist_lstm.pipeline import stage

    stage.begin()

import os
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from mnist_lstm.data.sequences import SPLITS, Sequences
from mnist_lstm.learning import device, precision
from mnist_lstm.learning.augmentation import Augmentation
from mnist_lstm.learning.checkpoint import Checkpoint
from mnist_lstm.learning.corruptions import corrupted
from mnist_lstm.learning.evaluation import (
    accuracy_by_rows,
    by_class,
    calibration,
    mean_answer,
    moved,
    overall,
    read_row_by_row,
)
from mnist_lstm.learning.model import RowLSTM, accuracy, infer
from mnist_lstm.pipeline import stage
from mnist_lstm.pipeline.params import Params
from mnist_lstm.pipeline.result_files import (
    EvaluationRecord,
    FinishedTraining,
    Row,
    RunRecord,
    read_rows,
    write_json,
    write_rows,
)
from mnist_lstm.pipeline.timing import now
from mnist_lstm.views import figures, pictures

EVALUATED = SPLITS[1:]  # validation and test
# a model that is not causal has to run once for each row: it gets this many images
WITHOUT_ORDER = 1000


def evaluate(
    params: Params,
    class_names: Path,
    sequences: Path,
    training: Path,
    published: Path,
    results: Path,
) -> None:
    """Measure the model in `training`, write tables and pictures into `results`, print accuracies.

    `class_names` has one name on each line, in the order of the labels. `published` is the
    published curve, with which results on mnist are compared.
    """
    started = now()
    is_recorded = stage.check_recorded("train")
    record = FinishedTraining.read(training)
    if is_recorded:  # so that DVC does not train it again, and its checkpoint is no longer needed
        Checkpoint(stage.root() / ".checkpoints", record.about.fingerprint).remove()

    data = {split: Sequences.load(sequences / f"{split}.safetensors") for split in EVALUATED}
    where, size = device.choose(params.train.device), params.evaluate.batch_size
    model = load_model(training / "model.safetensors", where, record.about.precision)
    answers = answers_of(model, params.evaluate.shifts, size, data)
    judged = {split: (answers[split].last, data[split].labels) for split in EVALUATED}
    metrics = _metrics(judged, answers)
    test, on_test = data["test"], metrics["test"]
    on_test["robustness"] = robustness(model, test, size)
    predictions = [row for split in EVALUATED for row in _predictions(split, *judged[split])]
    reading = _reading(answers, data)
    known = read_rows(published) if test.dataset == "mnist" else []
    _print(on_test, len(test))
    if known:
        print(f"the published script: {known[-1]['test_accuracy']:.2%}")

    print(f"tables and pictures: {results}")  # printed first, because drawing takes seconds
    classes = class_names.read_text(encoding="utf-8").splitlines()
    write_json(results / "metrics.json", metrics)
    write_rows(results / "classes.csv", by_class(*judged["test"], classes))
    write_rows(results / "predictions.csv", predictions)
    write_rows(results / "reading.csv", reading)
    drawn = _pictures(test, answers["test"], classes, record.rows, known, reading)
    drawn["batch"] = _batch(Sequences.load(sequences / "train.safetensors"), classes, record.about)
    for name, figure in drawn.items():
        figures.save(figure, results / f"{name}.png")
    settings = {f"evaluate.{key}": value for key, value in params.evaluate.model_dump().items()}
    moment = EvaluationRecord(record.about.training_id, started, now(started), settings)
    write_json(results / "run.json", vars(moment))

    _show(record.about.name, training, results)
    if stage.root().resolve() == Path.cwd():
        print("compare: `dvc metrics diff`; to train again, change params.yaml and `dvc repro`")
    else:  # in a temporary copy, whose results are not those of the workspace
        print(
            "compare: `mnist-lstm runs` lists the runs, `mnist-lstm compare RUN RUN` compares two"
        )


class _Answers(NamedTuple):
    """Logits: `last` (N, C) after the whole image, `reading` (n, T, C) after each of its rows.

    n is N, but at most WITHOUT_ORDER for a model that is not causal. `shifted` (N, C) are the mean
    probabilities over evaluate.shifts, or None.
    """

    last: Tensor
    reading: Tensor
    shifted: Tensor | None


def load_model(weights: Path, where: torch.device, trained_in: str) -> RowLSTM:
    """The trained model on a device, where it computes in the precision of its training."""
    model = RowLSTM.load(weights).to(where)
    if trained_in == "bfloat16" and not precision.works(model):
        print("trained in bfloat16, evaluated in float32: bfloat16 does not work here")
    else:
        model.precision = trained_in
    return model


def answers_of(
    model: RowLSTM, furthest: int, batch_size: int, data: Mapping[str, Sequences]
) -> dict[str, _Answers]:
    """The model's answers to the images, also shifted by up to `furthest` pixels."""
    where, answers = model.head.weight.device, {}
    for split, found in data.items():
        pixels = found.pixels.to(where)
        batches = (pixels if model.is_causal else pixels[:WITHOUT_ORDER]).split(batch_size)
        # shown on a terminal only
        with tqdm(batches, split, unit=" batches", leave=False, delay=1, disable=None) as bar:
            reading = read_row_by_row(model, bar).cpu()
        last = reading[:, -1] if model.is_causal else infer(model, pixels, batch_size).cpu()
        shifted = None
        if furthest:
            views = moved(pixels, furthest)
            with tqdm(views, f"{split}, moved", leave=False, delay=1, disable=None) as bar:
                shifted = mean_answer(model, bar, batch_size)
        answers[split] = _Answers(last, reading, shifted)
    return answers


def _metrics(
    judged: Mapping[str, tuple[Tensor, Tensor]], answers: Mapping[str, _Answers]
) -> dict[str, dict[str, Any]]:
    metrics: dict[str, dict[str, Any]] = {}
    for split, (logits, labels) in judged.items():
        metrics[split] = overall(logits, labels) | calibration(logits, labels)
        if (shifted := answers[split].shifted) is not None:
            metrics[split]["shifted_accuracy"] = accuracy(shifted, labels)
    return metrics


def robustness(model: RowLSTM, test: Sequences, batch_size: int) -> dict[str, float]:
    """The accuracy on corrupted copies of the images, by the kind of corruption."""
    copies = corrupted(test.pixels.to(model.head.weight.device))
    with tqdm(copies.items(), "corrupted", leave=False, delay=1, disable=None) as bar:
        return {
            name: accuracy(infer(model, pixels, batch_size).cpu(), test.labels)
            for name, pixels in bar
        }


def _print(on_test: Mapping[str, Any], images: int) -> None:
    wrong = round(images * (1 - on_test["accuracy"]))
    print(f"test accuracy {on_test['accuracy']:.2%}: {wrong:,} of {images:,} images wrong")
    if "shifted_accuracy" in on_test:
        print(f"accuracy of the mean answer to shifted images: {on_test['shifted_accuracy']:.2%}")
    each = ", ".join(f"{name} {value:.2%}" for name, value in on_test["robustness"].items())
    print(textwrap.fill(f"accuracy on corrupted images: {each}", 80, subsequent_indent="  "))


def _show(name: str, training: Path, results: Path) -> None:
    """Log the run to MLflow. If that fails, print why and how to do it later."""
    print(f"logging to MLflow, as {name} …")  # takes seconds, most of them for the model's export
    from mnist_lstm.tracking.credentials import printable
    from mnist_lstm.tracking.projection import project
    from mnist_lstm.tracking.store import open_store
    from mnist_lstm.tracking.store_errors import TrackingError
    from mnist_lstm.tracking.view import View

    try:
        store = open_store(stage.root())
        for line in store.changes:
            print(f"MLflow store: {line}")
        project(store, View.read(training, [results]))
        where = f" ({printable(store.uri)})" if "MLFLOW_TRACKING_URI" in os.environ else ""
        print(f"see the run in MLflow: `make ui`{where}")
    except TrackingError as error:
        print(f"{error}; all results are on disk, and `mnist-lstm sync` adds them there later")


def _predictions(split: str, logits: Tensor, labels: Tensor) -> Iterator[Row]:
    probabilities, predicted = logits.softmax(dim=1).max(dim=1)
    columns = (labels.tolist(), predicted.tolist(), probabilities.tolist())
    for index, (label, guess, probability) in enumerate(zip(*columns, strict=True)):
        yield {
            "split": split,
            "index": index,
            "actual": label,
            "predicted": guess,
            "probability": f"{probability:.4f}",
        }


def _reading(answers: Mapping[str, _Answers], data: Mapping[str, Sequences]) -> list[Row]:
    columns = {}
    for split in EVALUATED:
        reading = answers[split].reading
        labels = data[split].labels[: len(reading)]
        columns[f"{split}_accuracy"] = accuracy_by_rows(reading, labels)
    return [
        {"rows": rows} | dict(zip(columns, values, strict=True))
        for rows, values in enumerate(zip(*columns.values(), strict=True), start=1)
    ]


def _pictures(
    test: Sequences,
    answers: _Answers,
    classes: list[str],
    curve: list[Row],
    published: list[Row],
    reading: list[Row],
) -> dict[str, Figure]:
    images, actual = test.pixels.numpy(), test.labels.numpy()
    beliefs = answers.reading.softmax(dim=2).numpy()  # (n, T, C)
    last = answers.last.softmax(dim=1).numpy()  # (N, C)
    asked = len(beliefs)
    return {
        "curve": figures.accuracy_curve(curve, published),
        "reading": figures.accuracy_by_rows(reading),
        "belief": pictures.belief(images[:asked], actual[:asked], beliefs, classes),
        "confusion": figures.confusion(actual, last.argmax(axis=1), classes),
        "mistakes": pictures.confident_mistakes(images, actual, last, classes),
    }


def _batch(train: Sequences, classes: list[str], about: RunRecord) -> Figure:
    """Some training images, with the distortions of the training."""
    images, labels = train.pixels[: pictures.BATCH], train.labels[: pictures.BATCH]
    augment = Augmentation(**about.params["augment"])
    torch.manual_seed(about.params["seed"])
    distorted = augment(images).numpy() if augment else None
    return pictures.batch(images.numpy(), labels.numpy(), classes, distorted)


if __name__ == "__main__":
    stage.run(evaluate)
