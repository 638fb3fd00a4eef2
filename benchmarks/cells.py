"""Measure what other cells and other optimizers reach: the reference with each, with three seeds.

Run: dvc repro preprocess && python -m benchmarks.cells [NAME ...] [OPTION ...]

Writes benchmarks/cells.csv, one row for each of the 15 trainings as soon as it ends, and prints the
table of docs/accuracy.md. A training that has a row is not repeated: delete the file on another
machine, so that all rows are of one. With names, such as `gru` or `sgd`, it trains these alone.
"""

from collections.abc import Mapping

from benchmarks import trainings
from benchmarks.studies import HERE, Study

TITLES = {
    "lstm": "lstm, adam (the reference)",
    "gru": "gru, adam",
    "rnn": "rnn, adam",
    "rmsprop": "lstm, rmsprop",
    "sgd": "lstm, sgd with a learning rate of 1",
}
# The loss is a tenth of the usual one, so SGD's rate is ten times the usual 0.1. Adam and RMSProp
# divide by the size of the gradients, so their rate is the reference's.
CHOICES: Mapping[str, Mapping[str, object]] = {
    "lstm": {},
    "gru": {"model.cell": "gru"},
    "rnn": {"model.cell": "rnn"},
    "rmsprop": {"train.optimizer": "rmsprop"},
    "sgd": {"train.optimizer": "sgd", "train.learning_rate": 1},
}
STUDY = Study(
    HERE / "cells.csv", "recipes/reference.yaml", {}, CHOICES, 3, "cell and optimizer", TITLES
)


if __name__ == "__main__":
    trainings.main(STUDY)
