"""Measure what other cells and other optimizers reach: the reference with each, with three seeds.

Run: python benchmarks/cells.py [NAME ...]   (12 trainings as DVC experiments)
Writes benchmarks/cells.csv, one row for each training as soon as it ends, and prints the table of
docs/accuracy.md. A training that has a row is not repeated. With names, such as `gru` or `sgd`, it
trains these alone. The reference's rows come from benchmarks/reproduction.csv.
"""

import csv
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

HERE = Path(__file__).parent
FILE = HERE / "cells.csv"
REPRODUCTION = HERE / "reproduction.csv"
SEEDS = 3
STEPS = 2000
# an evaluation of 15,000 images takes as long as many steps, and the table needs the last one only
COMMON = {"train.eval_every": STEPS}
REFERENCE = "lstm, adam (the reference)"
# The loss is a tenth of the usual one, so SGD's rate is ten times the usual 0.1. Adam and RMSProp
# divide by the size of the gradients, so their rate is the reference's.
CHOICES: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "gru": ("gru, adam", {"model.cell": "gru"}),
    "rnn": ("rnn, adam", {"model.cell": "rnn"}),
    "rmsprop": ("lstm, rmsprop", {"train.optimizer": "rmsprop"}),
    "sgd": (
        "lstm, sgd with a learning rate of 1",
        {"train.optimizer": "sgd", "train.learning_rate": 1},
    ),
}
COLUMNS = ("choice", "seed", "validation_accuracy", "test_accuracy", "model_sha256")
Row = Mapping[str, str]


def main(names: Sequence[str]) -> None:
    """Train what has no row yet, of the choices with these names, or of all."""
    if unknown := set(names) - CHOICES.keys():
        sys.exit(f"{', '.join(sorted(unknown))}: not among {', '.join(CHOICES)}")
    for name in names or CHOICES:
        done = {row["seed"] for row in trained() if row["choice"] == name}
        for seed in map(str, range(SEEDS)):
            if seed not in done:
                write([*trained(), train(name, int(seed))])
    print(table())


def trained() -> list[Row]:
    """The rows of benchmarks/cells.csv."""
    if not FILE.exists():
        return []
    with FILE.open() as file:
        return list(csv.DictReader(file))


def write(rows: Iterable[Row]) -> None:
    """Write the file, in the order of CHOICES."""
    order = list(CHOICES)
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: (order.index(row["choice"]), row["seed"])))


def train(name: str, seed: int) -> Row:
    """Train one seed as a DVC experiment. Seeds before it that this commit has are not repeated."""
    _, values = CHOICES[name]
    settings = (f"{key}={json.dumps(value)}" for key, value in {**COMMON, **values}.items())
    changes = [part for setting in settings for part in ("-S", setting)]
    command = [str(Path(sys.executable).parent / "mnist-lstm"), "seeds", str(seed + 1)]
    printed = subprocess.run(
        [*command, *changes, "--json"], cwd=HERE.parent, check=True, stdout=subprocess.PIPE
    )
    record = json.loads(printed.stdout)["records"][seed]
    return {
        "choice": name,
        "seed": str(seed),
        "validation_accuracy": str(record["metrics"]["validation"]["accuracy"]),
        "test_accuracy": str(record["metrics"]["test"]["accuracy"]),
        "model_sha256": record["model_sha256"],
    }


def reference() -> list[Row]:
    """The last row of the reference's first seeds."""
    with REPRODUCTION.open() as file:
        rows = [row for row in csv.DictReader(file) if row["step"] == str(STEPS)]
    return [row for row in rows if int(row["seed"]) < SEEDS]


def table() -> str:
    """The table of docs/accuracy.md, from the files: accuracies in percent."""
    rows = trained()
    groups = {REFERENCE: reference()} | {
        title: [row for row in rows if row["choice"] == name]
        for name, (title, _) in CHOICES.items()
    }
    lines = ["| cell and optimizer | validation images | test images |", "|---|---|---|"]
    for title, group in groups.items():
        if len(group) == SEEDS:
            accuracies = (format_accuracy(group, split) for split in ("validation", "test"))
            lines.append(f"| {title} | {' | '.join(accuracies)} |")
    return "\n".join(lines)


def format_accuracy(rows: Iterable[Row], split: str) -> str:
    """Mean and standard deviation, in points, over the seeds."""
    figures = [float(row[f"{split}_accuracy"]) for row in rows]
    return f"{mean(figures):.2%} ± {100 * stdev(figures):.2f}"


if __name__ == "__main__":
    main(sys.argv[1:])
