"""A small training as src/train.py makes one, to be stopped and gone on with."""

from collections.abc import Iterator
from typing import Any

import torch
from samples import drawn, small_model

from mnist_lstm.data.sequences import Batches
from mnist_lstm.learning.augmentation import Augmentation
from mnist_lstm.learning.fit import Evaluation, fit
from mnist_lstm.learning.optimizer import AveragingAdam, one_cycle


class Learner:
    """It makes `steps` steps of 16 out of so many images, with an evaluation every so often.

    `beyond` the reference it has all that the reference lacks. Others are settings of its model.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        on: str = "cpu",
        images: int = 40,
        steps: int = 10,
        every: int = 3,
        beyond: bool = False,
        recorded: bool = False,
        precision: str = "float32",
        **others: Any,
    ) -> None:
        torch.manual_seed(seed)
        if beyond:
            others |= {"reads": "both", "num_rows": 8, "pooling": "mean"}
        self.model = small_model(**others).to(on)
        self.model.precision = precision
        self.optimizer = AveragingAdam(
            self.model, 0.001, averaging=0.9 * beyond, weight_decay=0.01 * beyond
        )
        self.batches = Batches(images, 16, torch.Generator().manual_seed(seed), on)
        self.train, self.held_out = (
            drawn(size, seed=number).to(torch.device(on))
            for number, size in enumerate((images, 20), start=1)
        )
        self.test = self.held_out
        self.settings: dict[str, Any] = {
            "steps": steps,
            "eval_every": every,
            "eval_batch_size": 20,
            "recorded": recorded,
        }
        if beyond:
            self.settings |= {
                "augment": Augmentation(rotation=20, shift=2, elastic=1),
                "rate_at": lambda step: one_cycle(0.01, step, steps),
                "clip_norm": 0.1,
            }

    @property
    def parts(self) -> tuple[torch.nn.Module, torch.optim.Optimizer, Batches]:
        return self.model, self.optimizer, self.batches

    def steps(self, start: int = 0) -> Iterator[Evaluation | None]:
        data = (self.train, self.held_out, self.test)
        return fit(*self.parts, *data, start=start, **self.settings)

    def run(self, start: int, stop: int) -> list[Evaluation]:
        """Its evaluations in the steps up to `stop`."""
        steps = self.steps(start)
        taken = [next(steps) for _ in range(stop - start)]
        return [evaluation for evaluation in taken if evaluation]

    def weights(self) -> torch.Tensor:
        return torch.cat([weight.detach().flatten().cpu() for weight in self.model.parameters()])
