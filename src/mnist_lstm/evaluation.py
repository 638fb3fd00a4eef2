"""Logits -> accuracy, loss, and precision, recall and F1 of each class.

N images, C classes
"""

import torch.nn.functional as F
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor

from mnist_lstm.training import accuracy


def overall(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy (a fraction) and loss (cross-entropy, nats an image): (N, C), (N,) -> both."""
    loss = F.cross_entropy(logits.double(), labels.long())
    return {"accuracy": accuracy(logits, labels), "loss": loss.item()}


def by_class(logits: Tensor, labels: Tensor) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of each class, fractions; 0 where one is not defined.

    (N, C), (N,) -> {"precision": {"0": …, …}, "recall": …, "f1": …}
    """
    classes = [str(label) for label in range(logits.shape[1])]
    scores = precision_recall_fscore_support(
        labels.numpy(), logits.argmax(dim=1).numpy(), labels=range(len(classes)), zero_division=0
    )
    return {
        name: dict(zip(classes, values.tolist(), strict=True))
        for name, values in zip(("precision", "recall", "f1"), scores, strict=False)
    }
