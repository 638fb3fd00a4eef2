"""Build a learner (model, optimizer, batches and learning rates) from plain values."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mnist_lstm.data.sequences import Batches, Sequences
from mnist_lstm.learning.model import RowLSTM
from mnist_lstm.learning.optimizer import OPTIMIZERS, Averaging, averaged, one_cycle


@dataclass(frozen=True)
class Learner:
    """Model, optimizer and batches. `rate_at` gives the learning rate of a step; None: constant.

    `best` are the weights that `keep` copied last; empty before.
    """

    model: RowLSTM
    optimizer: Averaging
    batches: Batches
    rate_at: Callable[[int], float] | None
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[RowLSTM, Averaging, Batches]:
        """The parts whose state a checkpoint holds."""
        return self.model, self.optimizer, self.batches

    def keep(self) -> None:
        """Copy the weights that an evaluation sees: their averages, if the optimizer has any."""
        with averaged(self.optimizer):
            self.best.update({name: each.clone() for name, each in self.model.state_dict().items()})


def model(data: Sequences, device: torch.device, **settings: Any) -> RowLSTM:
    """Make a model for data of this shape on a device; `settings` go to RowLSTM."""
    _, num_rows, input_size = data.pixels.shape
    return RowLSTM(
        input_size=input_size, num_classes=data.num_classes, num_rows=num_rows, **settings
    ).to(device)


def learner(
    seed: int,
    make: Callable[[], RowLSTM],
    images: int,
    *,
    precision: str,
    wavefront: bool,
    steps: int,
    batch_size: int,
    learning_rate: float,
    schedule: str,
    averaging: float,
    weight_decay: float,
    optimizer: str = "adam",
) -> Learner:
    """Make a learner for `images` training images, with all randomness from one seed.

    `make` returns its model. `optimizer` is one of OPTIMIZERS. `schedule` is constant or one-cycle;
    `learning_rate` is its highest rate. Seeds torch's default generators, from which initial
    weights, dropout masks and distortions are drawn.
    """
    torch.manual_seed(seed)
    its = make()
    its.precision, its.wavefront = precision, wavefront
    device = its.head.weight.device
    shuffles = torch.Generator().manual_seed(seed)
    rate_at = None
    if schedule == "one-cycle":
        rate_at = lambda step: one_cycle(learning_rate, step, steps)  # noqa: E731
    return Learner(
        its,
        OPTIMIZERS[optimizer](its, learning_rate, averaging=averaging, weight_decay=weight_decay),
        Batches(images, batch_size, shuffles, device),
        rate_at,
    )
