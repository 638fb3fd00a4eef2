"""A small training, made as in src/train.py, that tests stop and continue."""

from collections.abc import Iterator
from typing import Any

import torch
from samples import drawn, small_model

from mnist_lstm.learning import build
from mnist_lstm.learning.augmentation import Augmentation
from mnist_lstm.learning.fit import Evaluation, fit


class Learner:
    """A training of `steps` steps with 16 of its images each, and some evaluations.

    It uses torch's default random generators, so make and train one before you make the next.

    With `beyond`, it has everything that the reference does not have. Other arguments are settings
    of the model.
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
        wavefront: bool = False,
        optimizer: str = "adam",
        rate: float | None = None,
        decay: float | None = None,
        **others: Any,
    ) -> None:
        if beyond:
            others |= {"reads": "both", "num_rows": 8, "pooling": "mean", "window": 3}
        learner = build.learner(
            seed,
            lambda: small_model(**others).to(on),
            images,
            precision=precision,
            wavefront=wavefront,
            steps=steps,
            batch_size=16,
            learning_rate=rate or (0.01 if beyond else 0.001),
            schedule="one-cycle" if beyond else "constant",
            averaging=0.9 * beyond,
            weight_decay=0.01 * beyond if decay is None else decay,
            optimizer=optimizer,
        )
        self.learner = learner
        self.parts = learner.parts
        self.model, self.optimizer, self.batches = learner.parts
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
            "rate_at": learner.rate_at,
        }
        if beyond:
            self.settings |= {
                "augment": Augmentation(rotation=20, shift=2, elastic=1),
                "clip_norm": 0.1,
            }

    def steps(self, start: int = 0) -> Iterator[Evaluation | None]:
        data = (self.train, self.held_out, self.test)
        return fit(*self.parts, *data, start=start, **self.settings)

    def run(self, start: int, stop: int) -> list[Evaluation]:
        """Train up to step `stop`; returns the evaluations."""
        steps = self.steps(start)
        taken = [next(steps) for _ in range(stop - start)]
        return [evaluation for evaluation in taken if evaluation]

    def weights(self) -> torch.Tensor:
        return torch.cat([weight.detach().flatten().cpu() for weight in self.model.parameters()])
