"""Evaluate the trained model on validation and test images, and show it all in MLflow.

Run: dvc repro evaluate
"""

from mnist_lstm import interruption

if __name__ == "__main__":
    interruption.watch()  # first, since the other imports take seconds

from collections.abc import Iterator, Mapping
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from mnist_lstm import device, figures, precision, stage
from mnist_lstm.checkpoint import Checkpoint
from mnist_lstm.clock import now
from mnist_lstm.evaluation import accuracy_by_rows, by_class, overall, read_row_by_row
from mnist_lstm.model import RowLSTM
from mnist_lstm.params import Params
from mnist_lstm.results import Row, Training, read_rows, write_json, write_rows
from mnist_lstm.sequences import Sequences
from mnist_lstm.tracking.projection import project
from mnist_lstm.tracking.store import TrackingError, open_store, shown
from mnist_lstm.tracking.view import View

SPLITS = ("validation", "test")


def evaluate(
    params: Params,
    class_names: Path,
    sequences: Path,
    training: Path,
    published: Path,
    results: Path,
) -> None:
    """Measure the model in `training`, write tables and pictures into `results`, tell the outcome.

    `class_names` has a name a line, in the order of the labels; `published` is the published curve,
    to compare with where the data set is mnist.
    """
    started = now()
    record = Training.read(training)
    # dvc.lock has the training by now: its checkpoint has served
    Checkpoint(stage.root() / ".checkpoints", record.about["fingerprint"]).remove()

    data = {split: Sequences.load(sequences / f"{split}.safetensors") for split in SPLITS}
    weights, trained_in = training / "model.safetensors", record.about["precision"]
    logits = _logits(params, weights, trained_in, data)
    answers = {split: (logits[split][:, -1], data[split].labels) for split in SPLITS}
    metrics = {split: overall(*answers[split]) for split in SPLITS}
    predictions = [
        row for split in SPLITS for row in _predictions(split, logits[split], data[split].labels)
    ]
    reading = _reading(logits, data)
    test = data["test"]
    wrong = sum(row["split"] == "test" and row["actual"] != row["predicted"] for row in predictions)
    accuracy = metrics["test"]["accuracy"]
    print(f"test accuracy {accuracy:.2%}: {wrong:,} of {len(test):,} images read wrong")
    known = read_rows(published) if test.dataset == "mnist" else []
    if known:
        print(f"the published script: {known[-1]['test_accuracy']:.2%}")

    print(f"tables and pictures: {results}")  # before they are drawn, which takes seconds
    classes = class_names.read_text(encoding="utf-8").splitlines()
    write_json(results / "metrics.json", metrics)
    write_rows(results / "classes.csv", by_class(*answers["test"], classes))
    write_rows(results / "predictions.csv", predictions)
    write_rows(results / "reading.csv", reading)
    pictures = _pictures(test, logits["test"], classes, record.rows, known, reading)
    for name, figure in pictures.items():
        figures.save(figure, results / f"{name}.png")
    settings = {f"evaluate.{key}": value for key, value in params.evaluate.model_dump().items()}
    moment = {"training_id": record.about["training_id"], "started": started, "ended": now()}
    write_json(results / "run.json", moment | {"params": settings})

    _show(record.about["name"], training, results)
    print("compare: `dvc metrics diff`; change params.yaml and `dvc repro` for another training")


def _logits(
    params: Params, weights: Path, trained_in: str, data: Mapping[str, Sequences]
) -> dict[str, Tensor]:
    """The model's answers after each row: (N, T, C) a split, in the precision of its training."""
    where = device.choose(params.train.device)
    model = RowLSTM.load(weights).to(where)
    if precision.works(trained_in, model):
        model.precision = trained_in
    else:
        print(f"trained in {trained_in}, evaluated in float32: the other does not work here")
    logits = {}
    for split, found in data.items():
        batches = found.pixels.to(where).split(params.evaluate.batch_size)
        # shown on a terminal only
        with tqdm(batches, split, unit=" batches", leave=False, delay=1, disable=None) as bar:
            logits[split] = read_row_by_row(model, bar).cpu()
    return logits


def _show(name: str, training: Path, results: Path) -> None:
    """Show the run in MLflow; where that fails, say so and how to do it later."""
    print(f"now into MLflow, as {name} …")  # which takes seconds, the model's export most of them
    try:
        store = open_store(stage.root())
        project(store, View.read(training, [results]))
        print(f"look at it there: `make ui` ({shown(store.uri)})")
    except TrackingError as error:
        print(f"{error}; the results are whole, and `mnist-lstm sync` shows them there later")


def _predictions(split: str, logits: Tensor, labels: Tensor) -> Iterator[Row]:
    probabilities, predicted = logits[:, -1].softmax(dim=1).max(dim=1)
    columns = (labels.tolist(), predicted.tolist(), probabilities.tolist())
    for index, (label, guess, probability) in enumerate(zip(*columns, strict=True)):
        yield {
            "split": split,
            "index": index,
            "actual": label,
            "predicted": guess,
            "probability": f"{probability:.4f}",
        }


def _reading(logits: Mapping[str, Tensor], data: Mapping[str, Sequences]) -> list[Row]:
    columns = {
        f"{split}_accuracy": accuracy_by_rows(logits[split], data[split].labels) for split in SPLITS
    }
    return [
        {"rows": rows} | dict(zip(columns, values, strict=True))
        for rows, values in enumerate(zip(*columns.values(), strict=True), start=1)
    ]


def _pictures(
    test: Sequences,
    logits: Tensor,
    classes: list[str],
    curve: list[Row],
    published: list[Row],
    reading: list[Row],
) -> dict[str, Figure]:
    images, actual = test.pixels.numpy(), test.labels.numpy()
    beliefs = logits.softmax(dim=2).numpy()  # (N, T, C)
    answers = beliefs[:, -1]  # (N, C)
    return {
        "curve": figures.accuracy_curve(curve, published),
        "reading": figures.accuracy_by_rows(reading),
        "belief": figures.belief(images, actual, beliefs, classes),
        "confusion": figures.confusion(actual, answers.argmax(axis=1), classes),
        "mistakes": figures.confident_mistakes(images, actual, answers, classes),
    }


if __name__ == "__main__":
    stage.run(evaluate)
