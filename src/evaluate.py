"""Evaluate the trained model on validation and test images, and show it all in MLflow.

Run: dvc repro evaluate
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from mnist_lstm import device, stage, tracking
from mnist_lstm.checkpoint import Checkpoint
from mnist_lstm.clock import now
from mnist_lstm.evaluation import by_class, overall
from mnist_lstm.model import RowLSTM, infer
from mnist_lstm.params import Params
from mnist_lstm.results import Row, Training, read_rows, write_json, write_rows
from mnist_lstm.sequences import Sequences


def evaluate(
    params: Params, sequences: Path, training: Path, published: Path, results: Path
) -> None:
    """Measure the model in `training`, write the figures into `results`, and tell the outcome.

    `published` is the published curve, to compare with where the data set is mnist.
    """
    started = now()
    record = Training.read(training)
    # dvc.lock has the training by now: its checkpoint has served
    Checkpoint(stage.root() / ".checkpoints", record.about["fingerprint"]).remove()

    where = device.choose(params.train.device)
    model = RowLSTM.load(training / "model.safetensors").to(where)
    metrics: dict[str, dict[str, Any]] = {}
    predictions: list[Row] = []
    for split in ("validation", "test"):
        data = Sequences.load(sequences / f"{split}.safetensors")
        logits = infer(model, data.pixels.to(where), params.evaluate.batch_size).cpu()
        metrics[split] = overall(logits, data.labels)
        predictions += _predictions(split, logits, data.labels)
    metrics["test"] |= by_class(logits, data.labels)

    write_json(results / "metrics.json", metrics)
    write_rows(results / "predictions.csv", predictions)
    settings = {f"evaluate.{key}": value for key, value in params.evaluate.model_dump().items()}
    moment = {"training_id": record.about["training_id"], "started": started, "ended": now()}
    write_json(results / "run.json", moment | {"params": settings})

    accuracy, wrong = (
        metrics["test"]["accuracy"],
        sum(row["split"] == "test" and row["actual"] != row["predicted"] for row in predictions),
    )
    print(f"test accuracy {accuracy:.2%}: {wrong:,} of {len(data):,} images read wrong")
    if data.dataset == "mnist":
        print(f"the published script: {read_rows(published)[-1]['test_accuracy']:.2%}")
    try:
        store = tracking.project(stage.root(), training, results, Path("params.yaml"))
        print(f"shown as {record.about['name']} in MLflow: `make ui` ({store})")
    except tracking.TrackingError as error:
        again = "`dvc repro --single-item --force evaluate` shows them there later"
        print(f"{error}; the results are whole, {again}")
    print("compare: `dvc metrics diff`; change params.yaml and `dvc repro` for another training")


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


if __name__ == "__main__":
    stage.run(evaluate)
