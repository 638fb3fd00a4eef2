"""The choices that are tried for the recipes."""

from types import ModuleType

import pytest
from samples import PROJECT

from benchmarks import candidates, fast
from benchmarks.trainings import params_of
from mnist_lstm.pipeline.params import flatten, load


@pytest.mark.parametrize("module", [fast, candidates], ids=lambda module: module.__name__)
def test_each_choice_changes_something_of_the_recipe(module: ModuleType) -> None:
    recipe = flatten(load(PROJECT / module.STUDY.recipe).model_dump())
    assert list(module.TITLES) == list(module.CHOICES)
    for name, changes in module.CHOICES.items():
        chosen = flatten(params_of(module.STUDY, name, 0).model_dump())
        assert all(chosen[key] == value != recipe[key] for key, value in changes.items())
        differs = {key for key, value in chosen.items() if value != recipe[key]}
        assert differs == {"train.eval_every", *changes}
