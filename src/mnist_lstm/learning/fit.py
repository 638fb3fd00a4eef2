"""fit(): the training loop, as a generator of its steps and of what was measured at some."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_lstm.data.sequences import Sequences
from mnist_lstm.learning.augmentation import Augmentation
from mnist_lstm.learning.model import accuracy, infer
from mnist_lstm.learning.optimizer import averaged, set_rate

WARM_UP = (
    3  # steps before one is recorded: cuDNN and cuBLAS set themselves up, Adam makes its state
)


@dataclass(frozen=True)
class Evaluation:
    """What was measured after `step` updates: a row of curve.csv.

    `epoch` counts completed passes over the training images. `train_accuracy` and `train_loss`
    (cross-entropy, nats an image) are of the batch just trained on, after its update, without
    dropout and distortions; the other two of all validation and test images. Accuracies are
    fractions.
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
    recorded: bool = False,
    augment: Augmentation | None = None,
    rate_at: Callable[[int], float] | None = None,
    clip_norm: float | None = None,
) -> Iterator[Evaluation | None]:
    """Train from step `start` to `steps`, a batch of indices (B,) into `train` at a time.

    Yields after each step: an Evaluation at each multiple of `eval_every` and at the end, else
    None. There the training can be saved, or left. All data, and the batches, are on the model's
    device. Where that is CUDA, steps can be `recorded`, which takes a capturable optimizer: a whole
    step is then one CUDA graph, launched at once, and the weights are the same. Nothing waits for
    the GPU between evaluations.

    Beyond the reference, the images of a batch are distorted by `augment`, `rate_at` tells the
    learning rate of a step, and gradients are scaled down to `clip_norm` where the norm of all is
    above it. Where the optimizer keeps averages of the weights, these are what is evaluated.
    """

    def update(indices: Tensor) -> None:
        pixels, labels = train.pixels[indices], train.labels[indices].long()
        logits = model(augment(pixels) if augment else pixels)
        # the reference's mean over batch *and* classes
        loss = F.cross_entropy(logits, labels) / train.num_classes
        optimizer.zero_grad()
        loss.backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()

    make_step = _Recorded(update) if recorded else update
    model.train()
    for step, indices in zip(range(start + 1, steps + 1), batches, strict=False):
        if rate_at:
            set_rate(optimizer, rate_at(step))
        make_step(indices)
        evaluation = None
        if step % eval_every == 0 or step == steps:
            pixels, labels = train.pixels[indices], train.labels[indices].long()
            with averaged(optimizer):
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


class _Recorded:
    """A function of indices (B,), as one CUDA graph from its call number WARM_UP + 1 on.

    What it computes with stays where it is in memory: it is called for what it changes.
    As in https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
    """

    def __init__(self, function: Callable[[Tensor], None]) -> None:
        self.function = function
        self.calls = 0
        self.indices = torch.empty(0)  # that the graph reads
        self.graph = torch.cuda.CUDAGraph()

    def __call__(self, indices: Tensor) -> None:
        self.calls += 1
        if self.calls <= WARM_UP:
            self._call_beside(indices)
            return
        if self.calls == WARM_UP + 1:
            self.indices = indices.clone()
            with torch.cuda.graph(self.graph):
                self.function(self.indices)  # recorded, not computed
        self.indices.copy_(indices)
        self.graph.replay()

    def _call_beside(self, indices: Tensor) -> None:
        """Call it outside of the default stream, as it will be recorded."""
        present, beside = torch.cuda.current_stream(), torch.cuda.Stream()
        beside.wait_stream(present)
        with torch.cuda.stream(beside):
            self.function(indices)
        present.wait_stream(beside)


def _accuracy_on(model: nn.Module, data: Sequences, batch_size: int) -> float:
    return accuracy(infer(model, data.pixels, batch_size), data.labels)
