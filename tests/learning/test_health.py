import math

import pytest
import torch
from learners import Learner
from samples import drawn

from mnist_lstm.learning.health import Diverged, check, doubt
from mnist_lstm.learning.model import accuracy, infer


class Answers(torch.nn.Module):
    """A model that answers class 1 for these images, and class 0 for all others."""

    def __init__(self, one: torch.Tensor) -> None:
        super().__init__()
        self.one = one

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(self.one[: len(pixels)].long(), 2).float()


ALWAYS = Answers(torch.ones(100))
HALF = Answers(torch.arange(100) % 2)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused(loss: float) -> None:
    check(50, 1e30)
    expected = f"the loss is {loss} at step 1,050, so the training stops; lower train.learning_rate"
    with pytest.raises(Diverged, match=expected):
        check(1050, loss)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_a_training_whose_weights_overflow_stops_at_its_next_evaluation(optimizer: str) -> None:
    """Each step multiplies the weights by -999."""
    learner = Learner(steps=40, every=20, rate=1.0, decay=1000.0, optimizer=optimizer)
    steps = learner.steps()
    assert [next(steps) for _ in range(19)] == [None] * 19
    with pytest.raises(Diverged, match="at step 20, so"):
        next(steps)


def test_one_answer_for_everything_is_told() -> None:
    data = drawn(100, seed=1)
    right = accuracy(infer(ALWAYS, data.pixels, 20), data.labels)
    assert doubt(ALWAYS, data, right, 20, "validation") == (
        "the model has learned nothing: it answers class 1 for each of the 100 validation images; "
        "lower train.learning_rate or model.dropout, or raise train.steps"
    )


@pytest.mark.parametrize(("dropout", "learns"), [(0.99, False), (0.5, True)])
def test_a_training_that_drops_nearly_all_is_told(dropout: float, learns: bool) -> None:
    learner = Learner(images=200, steps=40, every=40, rate=0.01, dropout=dropout)
    (last,) = learner.run(0, 40)
    told = doubt(learner.model, learner.held_out, last.validation_accuracy, 20, "validation")
    assert (told is None) is learns, told
    assert told is None or told.startswith("the model has learned n")


def test_little_more_than_chance_is_told() -> None:
    data = drawn(100, seed=1)
    data.labels[:] = HALF.one
    assert doubt(HALF, data, 0.549, 20, "validation") == (
        "the model has learned next to nothing: 54.9 % of the validation images are right, and "
        "guessing among 2 classes gives 50.0 %; lower train.learning_rate or model.dropout, or "
        "raise train.steps"
    )
    assert doubt(HALF, data, 0.551, 20, "validation") is None


def test_one_answer_is_told_where_most_images_are_of_one_class() -> None:
    data = drawn(100, seed=1)
    data.labels[:90] = 1
    share = (data.labels == 1).sum().item() / 100
    told = doubt(ALWAYS, data, share, 20, "validation")
    assert told
    assert "it answers class 1 for each" in told
    assert doubt(HALF, data, share, 20, "validation") is None
