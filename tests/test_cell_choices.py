"""The table of cells and optimizers compares each kind with the reference."""

from typing import get_args

from samples import REFERENCE_RECIPE

from benchmarks.cells import CHOICES, STUDY, TITLES
from benchmarks.trainings import params_of
from mnist_lstm.learning.optimizer import OPTIMIZERS
from mnist_lstm.pipeline.params import ModelParams, flatten, load


def test_each_cell_and_each_optimizer_is_a_choice() -> None:
    chosen = [params_of(STUDY, name, 0) for name in CHOICES]
    cells = get_args(ModelParams.model_fields["cell"].annotation)
    assert {each.model.cell for each in chosen} == set(cells)
    assert {each.train.optimizer for each in chosen} == OPTIMIZERS.keys()
    assert list(TITLES) == list(CHOICES)


def test_all_else_is_the_reference() -> None:
    reference = flatten(load(REFERENCE_RECIPE).model_dump())
    for name, changes in CHOICES.items():
        chosen = flatten(params_of(STUDY, name, 2).model_dump())
        differs = {key for key, value in chosen.items() if value != reference[key]}
        assert differs == {"seed", "train.eval_every", *changes}
        assert chosen["train.eval_every"] == reference["train.steps"]
