"""From logits: accuracy, loss, calibration, scores of each class, accuracy after each row.

N images, T rows as time steps, D pixels a row, B batch, H hidden size, C classes
"""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_lstm.learning.model import RowLSTM, accuracy, infer

BINS = 15  # of probabilities, for the calibration error
COVERED = 0.99  # fraction of right answers


def overall(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy (a fraction) and loss (cross-entropy, nats an image): (N, C), (N,) -> both."""
    loss = F.cross_entropy(logits.double(), labels.long())
    return {"accuracy": accuracy(logits, labels), "loss": loss.item()}


def calibration(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """How far a model's probabilities can be trusted: (N, C), (N,) -> two fractions.

    `calibration_error` is the expected calibration error of Guo et al. (2017), with BINS bins of
    equal width: |mean probability of a bin's answers − fraction of them that is right|, averaged
    over the bins, each weighted by its number of images. `coverage_at_99` is the largest fraction
    of the images, those with the most probable answers, of which at least COVERED are right.
    """
    probabilities, answers = logits.double().softmax(dim=1).max(dim=1)
    right = (answers == labels).double()
    bins = (probabilities * BINS).long().clamp(max=BINS - 1)
    differences = torch.zeros(BINS, dtype=torch.float64).index_add(0, bins, probabilities - right)
    surest, order = probabilities.sort(descending=True)
    images = torch.arange(1, len(labels) + 1)
    covered = right[order].cumsum(dim=0) >= COVERED * images
    # a threshold takes all images of one probability, or none of them
    covered[:-1] &= surest[1:] < surest[:-1]
    return {
        "calibration_error": differences.abs().sum().item() / len(labels),
        "coverage_at_99": int((covered * images).max()) / len(labels),
    }


def by_class(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> list[dict[str, Any]]:
    """For each class: its number of images, precision, recall and F1 (fractions; 0 if undefined).

    Shapes: logits (N, C), labels (N,), one name for each class
    """
    # scikit-learn has a function for this, but it takes two seconds to import
    number = len(classes)
    pairs = torch.bincount(labels.long() * number + logits.argmax(dim=1), minlength=number**2)
    counts = pairs.view(number, number)  # actual, predicted
    right, actual, predicted = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
    columns = {
        "images": actual,
        "precision": right.double() / predicted.clamp(min=1),
        "recall": right.double() / actual.clamp(min=1),
        "f1": 2 * right.double() / (actual + predicted).clamp(min=1),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [
        {"class": name, **dict(zip(columns, row, strict=True))}
        for name, row in zip(classes, rows, strict=True)
    ]


@torch.inference_mode()
def read_row_by_row(model: RowLSTM, batches: Iterable[Tensor]) -> Tensor:
    """Logits after each row, as `RowLSTM.after_each_row` gives them: (B, T, D) each -> (N, T, C).

    The logits after the last row equal those of `model.infer` for the same batches, bit for bit.
    """
    was_training = model.training
    model.eval()
    logits = [model.after_each_row(pixels) for pixels in batches]
    model.train(was_training)
    return torch.cat(logits)


def moved(pixels: Tensor, furthest: int) -> list[Tensor]:
    """Shift the images by up to `furthest` pixels each way: all (2·furthest + 1)² shifts.

    (N, T, D) -> (N, T, D) each; pixels from outside an image are 0
    """
    _, rows, columns = pixels.shape
    padded = F.pad(pixels, [furthest] * 4)
    return [
        padded[:, down : down + rows, right : right + columns]
        for down, right in product(range(2 * furthest + 1), repeat=2)
    ]


def mean_answer(model: RowLSTM, views: Iterable[Tensor], batch_size: int) -> Tensor:
    """The mean of the probabilities for several views of the images: (N, T, D) each -> (N, C).

    The result is on the CPU: a Mac's GPU has no float64.
    """
    answers = [infer(model, view, batch_size).cpu().double().softmax(dim=1) for view in views]
    return torch.stack(answers).mean(dim=0)


def accuracy_by_rows(logits: Tensor, labels: Tensor) -> list[float]:
    """Accuracy after 1, 2, … T rows: (N, T, C), (N,) -> T fractions."""
    return [accuracy(after, labels) for after in logits.unbind(dim=1)]
