"""Train candidates for recipes/best.yaml: the recipe with other values, with two seeds each.

Run: dvc repro preprocess && python -m benchmarks.candidates [NAME ...] [OPTION ...]

Writes benchmarks/candidates.csv, one row for each training as soon as it ends, and prints the table
of docs/accuracy.md. A training that has a row is not repeated: delete the file if the recipe
changes, or on another machine. On a processor, a training takes most of an hour.
"""

from collections.abc import Mapping

from benchmarks import trainings
from benchmarks.studies import HERE, Study

TITLES = {
    "windows": "windows of five rows, and the last output instead of the mean",
    "both": "rows and columns, each with layers of their own",
}
CHOICES: Mapping[str, Mapping[str, object]] = {
    "windows": {"model.window": 5, "model.pooling": "last"},
    "both": {"model.reads": "both"},
}
STUDY = Study(HERE / "candidates.csv", "recipes/best.yaml", {}, CHOICES, 2, "changed", TITLES)


if __name__ == "__main__":
    trainings.main(STUDY)
