"""Measure what other cells and other optimizers reach: the reference with each, with three seeds.

Run: python benchmarks/cells.py   (15 trainings as DVC experiments; experiments that this commit
already has are not trained again). Writes benchmarks/cells.csv, one row for each training, and
prints the table of docs/accuracy.md.
"""

import csv
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean, stdev

HERE = Path(__file__).parent
FILE = HERE / "cells.csv"
SEEDS = 3
# an evaluation of 15,000 images takes as long as many steps, and the table needs the last one only
COMMON = {"train.eval_every": 2000}
# The loss is a tenth of the usual one, so SGD's rate is ten times the usual 0.1. Adam and RMSProp
# divide by the size of the gradients, so their rate is the reference's.
CHOICES: Mapping[str, Mapping[str, object]] = {
    "lstm, adam (the reference)": {},
    "gru, adam": {"model.cell": "gru"},
    "rnn, adam": {"model.cell": "rnn"},
    "lstm, rmsprop": {"train.optimizer": "rmsprop"},
    "lstm, sgd with a learning rate of 1": {"train.optimizer": "sgd", "train.learning_rate": 1},
}


def main() -> None:
    trainings = [row for name, values in CHOICES.items() for row in measured(name, values)]
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, trainings[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(trainings)
    print(table())


def measured(name: str, values: Mapping[str, object]) -> Iterable[dict[str, object]]:
    """The results of each seed. Trains if there is no such experiment."""
    settings = (f"{key}={json.dumps(value)}" for key, value in {**COMMON, **values}.items())
    changes = [part for setting in settings for part in ("-S", setting)]
    command = [str(Path(sys.executable).parent / "mnist-lstm"), "seeds", str(SEEDS)]
    printed = subprocess.run(
        [*command, *changes, "--json"], cwd=HERE.parent, check=True, stdout=subprocess.PIPE
    )
    for record in json.loads(printed.stdout)["records"]:
        yield {
            "model": name,
            "seed": record["params"]["seed"],
            "validation_accuracy": record["metrics"]["validation"]["accuracy"],
            "test_accuracy": record["metrics"]["test"]["accuracy"],
            "seconds": record["seconds"],
            "device": record["device"],
            "model_sha256": record["model_sha256"],
        }


def table() -> str:
    """The table of docs/accuracy.md, from the file: accuracies in percent."""
    with FILE.open() as file:
        rows = list(csv.DictReader(file))
    lines = ["| cell and optimizer | validation images | test images |", "|---|---|---|"]
    for name in dict.fromkeys(row["model"] for row in rows):
        of = [row for row in rows if row["model"] == name]
        accuracies = (format_accuracy(of, split) for split in ("validation", "test"))
        lines.append(f"| {name} | {' | '.join(accuracies)} |")
    return "\n".join(lines)


def format_accuracy(rows: Iterable[Mapping[str, str]], split: str) -> str:
    """Mean and standard deviation, in points, over the seeds."""
    figures = [float(row[f"{split}_accuracy"]) for row in rows]
    return f"{mean(figures):.2%} ± {100 * stdev(figures):.2f}"


if __name__ == "__main__":
    main()
