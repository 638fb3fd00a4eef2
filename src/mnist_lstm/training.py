"""fit(): the training loop, as a generator of its steps and of what was measured at some."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_lstm.model import accuracy, infer
from mnist_lstm.sequences import Sequences


@dataclass(frozen=True)
class Evaluation:
    """What was measured after `step` updates: a row of curve.csv.

    `epoch` counts completed passes over the training images. `train_accuracy` and `train_loss`
    (cross-entropy, nats an image) are of the batch just trained on, after its update and without
    dropout; the other two of all validation and test images. Accuracies are fractions.
    """

    step: int
    epoch: int
    train_accuracy: float
    validation_accuracy: float
    test_accuracy: float
    train_loss: float


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Tensor],
    train: Sequences,
    validation: Sequences,
    test: Sequences,
    *,
    start: int,
    steps: int,
    eval_every: int,
    eval_batch_size: int,
) -> Iterator[Evaluation | None]:
    """Train from step `start` to `steps`, a batch of indices (B,) into `train` at a time.

    Yields after each step: an Evaluation at each multiple of `eval_every` and at the end, else
    None. There the training can be saved, or left. All data is on the model's device.
    """
    model.train()
    for step, indices in zip(range(start + 1, steps + 1), batches, strict=False):
        on_device = indices.to(train.labels.device)
        pixels, labels = train.pixels[on_device], train.labels[on_device].long()

        # the reference's mean over batch *and* classes
        loss = F.cross_entropy(model(pixels), labels) / train.num_classes

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        evaluation = None
        if step % eval_every == 0 or step == steps:
            logits = infer(model, pixels, eval_batch_size)  # (B, C)
            evaluation = Evaluation(
                step=step,
                epoch=step * len(indices) // len(train),
                train_accuracy=accuracy(logits, labels),
                validation_accuracy=_accuracy_on(model, validation, eval_batch_size),
                test_accuracy=_accuracy_on(model, test, eval_batch_size),
                train_loss=F.cross_entropy(logits, labels).item(),
            )
        yield evaluation


def _accuracy_on(model: nn.Module, data: Sequences, batch_size: int) -> float:
    return accuracy(infer(model, data.pixels, batch_size), data.labels)
