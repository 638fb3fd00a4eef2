"""This project's own loop, mnist_lstm.learning.fit.fit, as src/train.py drives it."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from benchmarks.contender import CLASSES, DROPOUT, LEARNING_RATE, Skipped, Work, drawn, run
from benchmarks.contenders.on_torch import OnTorch
from mnist_lstm import UserError
from mnist_lstm.data.sequences import Sequences
from mnist_lstm.learning import build, device, precision
from mnist_lstm.learning.fit import Evaluation, fit

ENDLESS = 10**9


class Project(OnTorch):
    """RowLSTM in one implementation and precision."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.work = work
        self.fastest_step = math.inf
        self.beside = work.batch_size + 1  # the training batch, and one validation image
        self.train_data = self.sequences(work.train_images, 0)
        self.test = self.sequences(work.test_images, 1)
        self.validation = self.sequences(work.validation_images, 2)
        self.prepare()
        self.steps = self.loop(self.validation, self.test, eval_every=ENDLESS)

    def prepare(self) -> None:
        """Make model, optimizer and batches, as src/train.py does."""
        device.choose(self.work.device)  # makes the computation deterministic
        settings = {
            "hidden_size": self.work.hidden_size,
            "num_layers": 2,
            "dropout": DROPOUT,
            "forget_bias": 1.0,
            "implementation": self.work.implementation,
        }
        make = partial(build.model, self.train_data, self.device, **settings)
        tried = make()
        try:
            computes_in = precision.choose(self.work.precision, tried)
        except UserError as error:
            raise Skipped(str(error)) from None
        batch = (self.work.batch_size, *self.train_data.pixels.shape[1:])
        self.on_gpu = self.device.type == "cuda"
        self.learner = build.learner(
            0,
            make,
            len(self.train_data),
            precision=computes_in,
            wavefront=precision.is_wavefront(computes_in, tried, batch),
            steps=ENDLESS,
            batch_size=self.work.batch_size,
            learning_rate=LEARNING_RATE,
            schedule="constant",
            averaging=0.0,
            weight_decay=0.0,
        )

    def loop(
        self, validation: Sequences, test: Sequences, *, eval_every: int
    ) -> Iterator[Evaluation | None]:
        """The training loop from step 0 on, without end. Each `next` computes one step."""
        return fit(
            *self.learner.parts,
            self.train_data,
            validation,
            test,
            start=0,
            steps=ENDLESS,
            eval_every=eval_every,
            eval_batch_size=self.work.eval_batch_size,
            recorded=self.on_gpu,
        )

    def step(self) -> None:
        next(self.steps)

    def train(self, steps: int) -> float:
        seconds = super().train(steps)
        self.fastest_step = min(self.fastest_step, seconds)
        return seconds

    def answer(self, images: int) -> None:
        raise NotImplementedError("an evaluation comes after a step: `evaluate` measures it")

    def evaluate(self, images: int) -> float:
        return self.evaluation(first(self.validation, 1), first(self.test, images))

    def validate(self) -> float:
        some = min(self.work.validation_images, self.work.evaluated)
        seconds = self.evaluation(first(self.validation, some), first(self.test, 1))
        return seconds * self.work.validation_images / (some + self.beside)

    def evaluation(self, validation: Sequences, test: Sequences) -> float:
        """Seconds of an evaluation in the loop: a step with one minus the fastest step."""
        before = 50 if self.on_gpu else 1  # a GPU's loop records one of its first steps
        loop = self.loop(validation, test, eval_every=before + 1)
        for _ in range(before):
            next(loop)
        self.wait()
        start = time.perf_counter()
        next(loop)
        self.wait()
        return time.perf_counter() - start - self.fastest_step

    def sequences(self, images: int, seed: int) -> Sequences:
        """Random images and labels, on the device."""
        pixels, labels = (torch.from_numpy(array) for array in drawn(images, self.work, seed))
        return Sequences(pixels, labels, CLASSES, "random", {}).to(self.device)


def first(data: Sequences, images: int) -> Sequences:
    """The first `images` images of the data."""
    return replace(data, pixels=data.pixels[:images], labels=data.labels[:images])


if __name__ == "__main__":
    run(Project)
