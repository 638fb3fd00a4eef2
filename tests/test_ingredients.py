"""Each ingredient of the best recipe is left out, and the docs have the committed trainings."""

import csv

import pytest
from samples import PROJECT, REFERENCE_RECIPE

from benchmarks import ingredients
from benchmarks.trainings import params_of
from mnist_lstm.pipeline.params import flatten, load

BEST, REFERENCE = (
    flatten(load(path).model_dump()) for path in (PROJECT / "recipes/best.yaml", REFERENCE_RECIPE)
)
STUDY = ingredients.study()
# the length of a training, its precision and how often it is evaluated are not ingredients
SCHEDULE = {
    "train.precision",
    "train.steps",
    "train.eval_every",
    "train.checkpoint_every",
    "evaluate.shifts",
}


def test_each_departure_from_the_reference_is_left_out() -> None:
    *single, everything = STUDY.choices.values()
    left_out = {key: v for values in single for key, v in values.items()}
    departs = {key for key, value in BEST.items() if value != REFERENCE[key]}
    assert left_out.keys() == departs - SCHEDULE
    assert left_out == {key: REFERENCE[key] for key in left_out} == everything


@pytest.mark.parametrize("name", STUDY.choices)
def test_the_trainings_are_the_shortened_recipe_without_it(name: str) -> None:
    chosen = flatten(params_of(STUDY, name, 0).model_dump())
    changes = ingredients.SHORTER | STUDY.choices[name]
    assert chosen == BEST | changes | {"seed": 0, "train.eval_every": changes["train.steps"]}


def test_ingredients_follow_the_recipe() -> None:
    other = {
        "augment.elastic": 1,
        "model.reads": "both",
        "model.directions": "both",
        "train.batch_size": 512,
        "model.hidden_size": 512,
    }
    expected = {
        "nothing": set(),
        "distorted images": {"augment.elastic"},
        "elastic distortions only": {"augment.elastic"},
        "columns": {"model.reads"},
        "batches of 512 instead of 128 images": {"train.batch_size"},
        "directions of both instead of forward": {"model.directions"},
        "everything": other.keys() - {"model.hidden_size"},
    }
    found = ingredients.without(REFERENCE | other, REFERENCE)
    assert {name: values.keys() for name, values in found.items()} == expected


def test_each_row_is_of_two_trainings() -> None:
    with STUDY.file.open() as file:
        rows = [(row["choice"], row["seed"], row["model_sha256"]) for row in csv.DictReader(file)]
    assert [row[:2] for row in rows] == [(name, seed) for name in STUDY.choices for seed in "01"]
    # gradients are never that large in these trainings: with clipping, the weights are the same
    others = [row[2] for row in rows if row[0] != "clipped gradients"]
    assert len(set(others)) == len(others)


def test_the_accuracy_page_has_this_table() -> None:
    assert STUDY.table() in (PROJECT / "docs" / "accuracy.md").read_text()
