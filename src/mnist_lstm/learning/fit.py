"""fit(): the training loop, a generator that yields after each step."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_lstm.data.sequences import Sequences
from mnist_lstm.learning import health
from mnist_lstm.learning.augmentation import Augmentation
from mnist_lstm.learning.group import Group
from mnist_lstm.learning.model import infer
from mnist_lstm.learning.optimizer import averaged, set_rate

# steps before one is recorded as a graph. In them, cuDNN and cuBLAS set themselves up, Triton
# compiles, and Adam creates its state
STEPS_BEFORE_RECORDING = 3
CUDA_EVAL_FACTOR = 16  # on an NVIDIA GPU, an evaluation computes so many batches at once


@dataclass(frozen=True)
class Evaluation:
    """The measurements after `step` updates: a row of curve.csv.

    `epoch` is the number of completed passes over the training images. `train_accuracy` and
    `train_loss` (cross-entropy, nats an image) are those of the last batch, measured after its
    update, without dropout and distortions. The other accuracies are those of all validation and
    all test images. Accuracies are fractions.
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
    evaluates: Callable[[], object] = lambda: None,
    group: Group | None = None,
    stop: Callable[[], int] = lambda: 0,
) -> Iterator[Evaluation | None]:
    """Train from step `start` to `steps`. `batches` are indices (B,) into `train`.

    Yields after each step: an Evaluation at each multiple of `eval_every` and at the end, otherwise
    None. The caller can save the training between two steps, or stop. All data and batches must be
    on the model's device. On a CUDA device, steps can be `recorded` (with a capturable optimizer):
    after the first STEPS_BEFORE_RECORDING, each step is launched as one CUDA graph, which gives the
    same weights. Between evaluations nothing waits for the GPU. An evaluation computes
    `eval_batch_size` images at once; on a CUDA device, CUDA_EVAL_FACTOR times as many.

    Beyond the reference: `augment` distorts the images of a batch, `rate_at` returns the learning
    rate of a step, and gradients are scaled down if their global norm exceeds `clip_norm`. If the
    optimizer averages the weights, the averages are evaluated. `evaluates` is called before each
    evaluation. Raises Diverged if the loss is then not finite.

    With a `group`, its processes train the model together: all call this with the same arguments,
    and only the first process evaluates. If `stop` returns a number other than 0 in one of them,
    all of them have it in `group.stops` after that step.
    """

    def update(indices: Tensor) -> None:
        pixels, labels = train.pixels[indices], train.labels[indices].long()
        logits = model(augment(pixels) if augment else pixels)
        # the reference's mean over batch *and* classes
        if group:
            own = labels[group.part(len(labels))]
            loss = F.cross_entropy(logits, own, reduction="sum") / (len(labels) * train.num_classes)
        else:
            loss = F.cross_entropy(logits, labels) / train.num_classes
        optimizer.zero_grad()
        loss.backward()
        if group:
            group.sum_gradients(model, stop())
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()

    make_step = _Recorded(update) if recorded else update
    measures = group is None or group.is_first
    model.train()
    for step, indices in zip(range(start + 1, steps + 1), batches, strict=False):
        if rate_at:
            set_rate(optimizer, rate_at(step))
        make_step(indices)
        evaluation = None
        if measures and (step % eval_every == 0 or step == steps):
            evaluates()
            batch = replace(train, pixels=train.pixels[indices], labels=train.labels[indices])
            with averaged(optimizer):
                logits = _answers(model, (batch, validation, test), eval_batch_size)
            loss = F.cross_entropy(logits[0], batch.labels.long()).item()
            health.check(step, loss)
            of_train, of_validation, of_test = _accuracies(logits, (batch, validation, test))
            evaluation = Evaluation(
                step=step,
                epoch=step * len(indices) // len(train),
                train_accuracy=of_train,
                validation_accuracy=of_validation,
                test_accuracy=of_test,
                train_loss=loss,
            )
        yield evaluation


class _Recorded:
    """A function of indices (B,) that becomes one CUDA graph after STEPS_BEFORE_RECORDING calls.

    The function is called for its side effects, and its tensors must stay at their addresses. See
    https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture

    Each function is recorded on its own stream, because cuBLAS has one workspace for each stream.
    Two graphs that share a workspace overwrite each other's intermediate sums when they run at the
    same time.
    """

    def __init__(self, function: Callable[[Tensor], None]) -> None:
        self.function = function
        self.calls = 0
        self.indices = torch.empty(0)  # the graph reads its input from here
        self.graph = torch.cuda.CUDAGraph()
        self.beside = torch.cuda.Stream()

    def __call__(self, indices: Tensor) -> None:
        self.calls += 1
        if self.calls <= STEPS_BEFORE_RECORDING:
            self._call_beside(indices)
            return
        if self.calls == STEPS_BEFORE_RECORDING + 1:
            self.indices = indices.clone()
            with torch.cuda.graph(self.graph, stream=self.beside):
                self.function(self.indices)  # recorded, not computed
            # When a recording begins, torch writes the random generator's offset on `beside`. Each
            # replay writes it again, on the present stream, and must do so later
            torch.cuda.current_stream().wait_stream(self.beside)
        self.indices.copy_(indices)
        self.graph.replay()

    def _call_beside(self, indices: Tensor) -> None:
        """Call the function on the stream on which it will be recorded."""
        present = torch.cuda.current_stream()
        self.beside.wait_stream(present)
        with torch.cuda.stream(self.beside):
            self.function(indices)
        present.wait_stream(self.beside)


def _answers(model: nn.Module, parts: Sequence[Sequences], batch_size: int) -> list[Tensor]:
    """Logits for the images of each part: (N, C) each."""
    pixels = [part.pixels for part in parts]
    if not pixels[0].is_cuda:
        return [infer(model, images, batch_size) for images in pixels]
    sizes = [len(images) for images in pixels]
    at_once = min(CUDA_EVAL_FACTOR * batch_size, sum(sizes))  # torch counts in 64 bits
    return list(infer(model, torch.cat(pixels), at_once).split(sizes))


def _accuracies(logits: Sequence[Tensor], parts: Sequence[Sequences]) -> list[float]:
    """The accuracy on each part. Waits for the GPU only once."""
    right = [
        (answers.argmax(dim=1) == part.labels).sum()
        for answers, part in zip(logits, parts, strict=True)
    ]
    counts: list[int] = torch.stack(right).tolist()
    return [count / len(part) for count, part in zip(counts, parts, strict=True)]
