"""Measure the effect of each choice of recipes/fast.yaml: the recipe with another, with two seeds.

Run: dvc repro preprocess && python -m benchmarks.fast [NAME ...] [OPTION ...]

Writes benchmarks/fast.csv, one row for each training as soon as it ends, and prints the table of
docs/accuracy.md. A training that has a row is not repeated: delete the file if the recipe changes,
or on another machine.
"""

from collections.abc import Mapping

from benchmarks import trainings
from benchmarks.studies import HERE, Study

TITLES = {
    "recipe": "nothing",
    "window-3": "windows of three rows",
    "window-1": "one row at each time step",
    "mean": "the mean of all outputs instead of the last one",
    "slower": "a learning rate of 0.003",
    "shorter": "850 steps",
    "before": "one row, the mean of all outputs and a learning rate of 0.003",
}
CHOICES: Mapping[str, Mapping[str, object]] = {
    "recipe": {},
    "window-3": {"model.window": 3},
    "window-1": {"model.window": 1},
    "mean": {"model.pooling": "mean"},
    "slower": {"train.learning_rate": 0.003},
    "shorter": {"train.steps": 850},
    "before": {"model.window": 1, "model.pooling": "mean", "train.learning_rate": 0.003},
}
STUDY = Study(HERE / "fast.csv", "recipes/fast.yaml", {}, CHOICES, 2, "changed", TITLES)


if __name__ == "__main__":
    trainings.main(STUDY)
