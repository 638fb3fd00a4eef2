import math

import pytest
import torch

from mnist_lstm.evaluation import by_class, overall

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 2.0, 0.0], [2.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 1, 0, 0], dtype=torch.uint8)


def test_overall() -> None:
    right, wrong = -math.log(math.e**2 / (math.e**2 + 2)), -math.log(1 / (math.e**2 + 2))
    figures = overall(LOGITS, LABELS)
    assert figures["accuracy"] == 0.75
    assert figures["loss"] == pytest.approx((3 * right + wrong) / 4)


def test_by_class() -> None:
    figures = by_class(LOGITS, LABELS)
    assert figures["precision"] == {"0": 1, "1": 0.5, "2": 0}  # no 2 was read: not defined
    assert figures["recall"] == {"0": pytest.approx(2 / 3), "1": 1, "2": 0}
    assert figures["f1"] == {"0": pytest.approx(0.8), "1": pytest.approx(2 / 3), "2": 0}
