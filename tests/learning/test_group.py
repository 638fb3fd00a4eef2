"""Parts of a batch together give what the whole batch gives; tests/pipeline has the processes."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from samples import drawn, small_model

from mnist_lstm.learning import group
from mnist_lstm.learning.augmentation import Augmentation
from mnist_lstm.learning.group import Group

CPU = torch.device("cpu")
BEYOND = {"reads": "both", "num_rows": 8, "directions": "both", "pooling": "mean"}


@pytest.mark.parametrize("images", [1, 5, 16])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_image_is_in_one_part(processes: int, images: int) -> None:
    parts = [Group(rank, processes, CPU).part(images) for rank in range(processes)]
    assert [image for part in parts for image in range(images)[part]] == list(range(images))
    sizes = [len(range(images)[part]) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def gradients(settings: dict[str, Any], processes: int | None) -> Iterator[list[torch.Tensor]]:
    """The gradients of each process for one batch; None: those of a model without a group."""
    data = drawn(images=7, seed=1)
    for rank in range(processes or 1):
        torch.manual_seed(0)
        model = small_model(dropout=0.5, **settings)
        pixels = Augmentation(rotation=10, elastic=0.5)(data.pixels)
        labels = data.labels.long()
        if processes:
            model.part = Group(rank, processes, CPU).part
            labels = labels[model.part(7)]
        F.cross_entropy(model(pixels), labels, reduction="sum").backward()
        yield [weight.grad for weight in model.parameters() if weight.grad is not None]


@pytest.mark.parametrize("settings", [{}, BEYOND, {"cell": "gru", "implementation": "unrolled"}])
def test_gradients_of_the_parts_sum_up_to_those_of_the_batch(settings: dict[str, Any]) -> None:
    (whole,) = gradients(settings, None)
    (alone,) = gradients(settings, 1)
    for one, other in zip(whole, alone, strict=True):
        assert torch.equal(one, other)
    for processes in (2, 3):
        parts = list(gradients(settings, processes))
        for expected, *its in zip(whole, *parts, strict=True):
            torch.testing.assert_close(sum(its), expected, rtol=1e-5, atol=1e-6)
            assert not torch.allclose(its[0], expected)


def test_a_part_is_for_training_only() -> None:
    model, data = small_model(dropout=0.5), drawn(images=7, seed=1)
    expected = model.eval()(data.pixels)
    model.part = Group(1, 2, CPU).part
    assert torch.equal(model(data.pixels), expected)
    assert len(model.train()(data.pixels)) == 4


def test_one_process_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert group.size() == 1
    with group.joined(CPU) as together:
        assert together is None
