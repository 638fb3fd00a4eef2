"""Measure the effect of each ingredient of recipes/best.yaml: train without it, with two seeds.

Run: dvc repro preprocess && python -m benchmarks.ingredients [NAME ...] [OPTION ...]

An ingredient is a value in which the recipe differs from recipes/reference.yaml, or several that
belong together. The trainings have fewer steps and a narrower model than the recipe's. Writes
benchmarks/ingredients.csv, one row for each training as soon as it ends, and prints the table of
docs/accuracy.md. A training that has a row is not repeated: delete the file if the recipe changes.
"""

from collections.abc import Mapping

from benchmarks import trainings
from benchmarks.studies import HERE, PROJECT, Study
from mnist_lstm.pipeline.params import flatten, format_value, load, short_name

RECIPE, REFERENCE = "recipes/best.yaml", "recipes/reference.yaml"
# with so few steps, the recipe's averaging decay would reach too far back
SHORTER = {"model.hidden_size": 128, "train.steps": 2000, "train.averaging": 0.99}
# what is no ingredient: data, sizes, the length of a training, and what changes no weight
NO_INGREDIENTS = {
    "seed",
    "fetch.dataset",
    "preprocess.validation_size",
    "model.hidden_size",
    "model.implementation",
    "train.steps",
    "train.processes",
    "train.keep_best",
    "train.eval_every",
    "train.checkpoint_every",
    "train.eval_batch_size",
    "train.device",
    "train.precision",
    "evaluate.batch_size",
    "evaluate.shifts",
    "promote.margin",
}
# the ingredients with plain names. `*` stands for all keys of a section; {} for the recipe's value
# and then the reference's. A key that is not here is an ingredient too, with its own name
NAMED: Mapping[str, tuple[str, ...]] = {
    "distorted images": ("augment.*",),
    "elastic distortions only": ("augment.elastic",),
    "one-cycle learning rate": ("train.schedule", "train.learning_rate"),
    "averaged weights": ("train.averaging",),
    "columns": ("model.reads",),
    "{} pooling": ("model.pooling",),
    "{} recurrent weights": ("model.recurrent_init",),
    "clipped gradients": ("train.clip_norm",),
    "weight decay": ("train.weight_decay",),
    "dropout of {} instead of {}": ("model.dropout",),
    "batches of {} instead of {} images": ("train.batch_size",),
}


def left_out(best: Mapping[str, object], reference: Mapping[str, object]) -> dict[str, object]:
    """The reference's values at the keys of all ingredients of the flat recipe `best`."""
    differs = (key for key, value in best.items() if value != reference[key])
    return {key: reference[key] for key in differs if key not in NO_INGREDIENTS}


def without(
    best: Mapping[str, object], reference: Mapping[str, object]
) -> dict[str, dict[str, object]]:
    """For each ingredient, and for all of them, the reference's values that leave it out."""
    everything = left_out(best, reference)
    choices: dict[str, dict[str, object]] = {"nothing": {}}
    named = set()
    for name, patterns in NAMED.items():
        keys = [key for key in everything if key in patterns or f"{_section(key)}.*" in patterns]
        if keys:
            values = (format_value(of[keys[0]]) for of in (best, reference))
            choices[name.format(*values)] = {key: everything[key] for key in keys}
            named |= set(keys)
    for key in (key for key in everything if key not in named):
        values = (format_value(of[key]) for of in (best, reference))
        choices["{} of {} instead of {}".format(short_name(key), *values)] = {key: everything[key]}
    return {**choices, "everything": everything}


def _section(key: str) -> str:
    return key.partition(".")[0]


def study() -> Study:
    """The trainings, from the two recipes."""
    best, reference = (flatten(load(PROJECT / name).model_dump()) for name in (RECIPE, REFERENCE))
    choices = without(best, reference)
    return Study(HERE / "ingredients.csv", RECIPE, SHORTER, choices, 2, heading="without")


if __name__ == "__main__":
    trainings.main(study())
