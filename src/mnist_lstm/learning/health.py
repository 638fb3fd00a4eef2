"""Whether a training goes wrong: a loss that is not finite, a model that only guesses."""

import math

from torch import nn

from mnist_lstm import UserError
from mnist_lstm.data.sequences import Sequences
from mnist_lstm.learning.model import infer

MARGIN = 0.05  # fraction of the images: a model this little above chance has learned nothing
REMEDY = "lower train.learning_rate or model.dropout, or raise train.steps"


class Diverged(UserError):
    """The loss of a training is not finite: it cannot go on."""


def check(step: int, loss: float) -> None:
    """Raises Diverged if the loss that was measured after a step is not finite."""
    if not math.isfinite(loss):
        raise Diverged(
            f"the loss is {loss} at step {step:,}, so the training stops; lower "
            "train.learning_rate, or set train.clip_norm, for example to 0.01"
        )


def doubt(
    model: nn.Module, data: Sequences, right: float, batch_size: int, split: str
) -> str | None:
    """A sentence about a model that only guesses; None for a model that has learned something.

    `right` is the fraction of the images of `data`, a split of that name, that the model answers
    correctly. Computes `batch_size` images at once, and only if the fraction is near that of one
    constant answer.
    """
    chance = 1 / data.num_classes
    shares = data.labels.bincount(minlength=data.num_classes) / len(data)
    if right >= max(chance, shares.max().item()) + MARGIN:
        return None
    answers = infer(model, data.pixels, batch_size).argmax(dim=1).unique()
    if len(answers) == 1:
        return (
            f"the model has learned nothing: it answers class {answers.item()} for each of the "
            f"{len(data):,} {split} images; {REMEDY}"
        )
    if right < chance + MARGIN:
        return (
            f"the model has learned next to nothing: {100 * right:.1f} % of the {split} images "
            f"are right, and guessing among {data.num_classes} classes gives {100 * chance:.1f} %; "
            f"{REMEDY}"
        )
    return None
