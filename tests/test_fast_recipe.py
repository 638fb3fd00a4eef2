"""The table of the choices of recipes/fast.yaml."""

from samples import PROJECT

from benchmarks.fast import CHOICES, STUDY, TITLES
from benchmarks.trainings import params_of
from mnist_lstm.pipeline.params import flatten, load


def test_each_choice_changes_something_of_the_recipe() -> None:
    recipe = flatten(load(PROJECT / "recipes" / "fast.yaml").model_dump())
    assert list(TITLES) == list(CHOICES)
    for name, changes in CHOICES.items():
        chosen = flatten(params_of(STUDY, name, 0).model_dump())
        assert all(chosen[key] == value != recipe[key] for key, value in changes.items())
        differs = {key for key, value in chosen.items() if value != recipe[key]}
        assert differs == {"train.eval_every", *changes}
