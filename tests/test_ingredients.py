"""The committed trainings leave out each ingredient of the best recipe, and the docs have them."""

import csv
import runpy

from samples import PROJECT

from mnist_lstm.pipeline.params import flatten, load

BENCHMARK = runpy.run_path(str(PROJECT / "benchmarks" / "ingredients.py"))
BEST, REFERENCE = (
    flatten(load(PROJECT / name).model_dump()) for name in ("recipes/best.yaml", "params.yaml")
)
# the length of a training, its precision and how often it is evaluated are not ingredients
SCHEDULE = {
    "train.precision",
    "train.steps",
    "train.eval_every",
    "train.checkpoint_every",
    "evaluate.shifts",
}


def test_each_departure_from_the_reference_is_left_out() -> None:
    left_out = {key: v for values in BENCHMARK["WITHOUT"].values() for key, v in values.items()}
    departs = {key for key, value in BEST.items() if value != REFERENCE[key]}
    assert left_out.keys() == departs - SCHEDULE
    assert left_out == {key: REFERENCE[key] for key in left_out}


def test_each_row_is_of_two_trainings() -> None:
    with BENCHMARK["FILE"].open() as file:
        rows = [(row["without"], row["seed"], row["model_sha256"]) for row in csv.DictReader(file)]
    expected = [(name, seed) for name in [*BENCHMARK["WITHOUT"], "everything"] for seed in "01"]
    assert [row[:2] for row in rows] == expected
    # gradients are never that large in these trainings: with clipping, the weights are the same
    others = [row[2] for row in rows if row[0] != "clipped gradients"]
    assert len(set(others)) == len(others)


def test_the_accuracy_page_has_this_table() -> None:
    assert BENCHMARK["table"]() in (PROJECT / "docs" / "accuracy.md").read_text()
