import math
from functools import partial
from typing import Any

import pytest
import torch
from samples import drawn, small_model

from mnist_lstm.data.sequences import Batches
from mnist_lstm.learning.fit import fit
from mnist_lstm.learning.optimizer import (
    MOMENTUM,
    OPTIMIZERS,
    AveragingAdam,
    averaged,
    one_cycle,
    set_rate,
)


def steps_of(optimizer: torch.optim.Optimizer, weight: torch.Tensor, steps: int) -> list[float]:
    """The weight after each step; every step makes it smaller."""
    seen = []
    for _ in range(steps):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        seen.append(weight.item())
    return seen


class One(torch.nn.Module):
    """A model of a single weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([3.0]))


def adam(**settings: float) -> tuple[AveragingAdam, torch.Tensor]:
    """The optimizer of a model of a single weight, and that weight."""
    model = One()
    return AveragingAdam(model, 0.1, **settings), model.weight


def test_it_is_adam_bit_for_bit() -> None:
    theirs = torch.nn.Parameter(torch.tensor([3.0]))
    expected = steps_of(torch.optim.Adam([theirs], 0.1), theirs, 20)
    assert steps_of(*adam(), 20) == steps_of(*adam(averaging=0.5), 20) == expected


def test_the_average_is_exponential_over_all_weights_so_far() -> None:
    optimizer, weight = adam(averaging=0.9)
    seen = steps_of(optimizer, weight, 7)
    shares = [0.9 ** (6 - index) for index in range(7)]
    expected = sum(share * value for share, value in zip(shares, seen, strict=True)) / sum(shares)
    with averaged(optimizer):
        assert weight.item() == pytest.approx(expected, rel=1e-5)
    assert weight.item() == seen[-1]


def test_the_weights_come_back_after_an_error() -> None:
    optimizer, weight = adam(averaging=0.9)
    (*_, last) = steps_of(optimizer, weight, 3)
    with pytest.raises(KeyboardInterrupt), averaged(optimizer):
        raise KeyboardInterrupt
    assert weight.item() == last


def test_without_averages_the_weights_stay() -> None:
    optimizer, weight = adam()
    (last,) = steps_of(optimizer, weight, 1)
    with averaged(optimizer):
        assert weight.item() == last


def test_weight_decay_is_decoupled() -> None:
    optimizer, weight = adam(weight_decay=0.5)
    # AdamW: w - lr·decay·w, less Adam's own first step, of size lr
    assert steps_of(optimizer, weight, 1)[0] == pytest.approx(3 - 0.1 * 0.5 * 3 - 0.1, rel=1e-5)


def test_one_cycle_rises_over_three_tenths_and_falls_to_zero() -> None:
    rates = [one_cycle(0.003, step, 1000) for step in range(1, 1001)]
    assert rates.index(max(rates)) == 299
    assert max(rates) == pytest.approx(0.003)
    assert rates[:300] == sorted(rates[:300])
    assert rates[299:] == sorted(rates[299:], reverse=True)
    assert rates[149] == pytest.approx(0.0015)
    assert 0 <= rates[-1] < 1e-8
    assert all(r > 0 for r in rates[:-1])
    assert math.isfinite(one_cycle(0.003, 1, 1))


def test_a_rate_in_a_tensor_is_set_in_place() -> None:
    optimizer, _ = adam()
    set_rate(optimizer, 0.5)
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.5
    group["lr"] = where = torch.tensor(0.1)  # as on a GPU
    set_rate(optimizer, 0.25)
    assert group["lr"] is where  # a CUDA graph reads it there
    assert where.item() == 0.25


def test_training_evaluates_the_averages_and_goes_on_with_the_weights() -> None:
    """The averages include all earlier weights, so an early evaluation measures early weights."""
    torch.manual_seed(0)
    model, data = small_model(dropout=0.0), drawn(100, seed=1)
    optimizer = AveragingAdam(model, 0.01, averaging=0.999)
    batches = Batches(100, 50, torch.Generator().manual_seed(0))
    with_average = list(
        fit(
            *(model, optimizer, batches, data, data, data),
            start=0,
            steps=60,
            eval_every=60,
            eval_batch_size=100,
        )
    )[-1]
    logits = model.eval()(data.pixels)
    own = torch.nn.functional.cross_entropy(logits, data.labels.long()).item()
    assert with_average is not None
    assert with_average.train_loss > 1.5 * own


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("adam", torch.optim.Adam),
        ("sgd", partial(torch.optim.SGD, momentum=MOMENTUM)),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
def test_each_is_torchs_own_bit_for_bit_and_averages(name: str, theirs: Any) -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    expected = steps_of(theirs([weight], 0.1), weight, 20)
    model = One()
    optimizer = OPTIMIZERS[name](model, 0.1, averaging=0.5)
    assert steps_of(optimizer, model.weight, 20) == expected
    shares = [0.5**back for back in range(20)]
    average = sum(s * w for s, w in zip(shares, expected[::-1], strict=True)) / sum(shares)
    with averaged(optimizer):
        assert model.weight.item() == pytest.approx(average, rel=1e-5)


@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop"])
def test_weight_decay_is_decoupled_in_each(name: str) -> None:
    """Without a gradient, each step shrinks the weight by the rate times the decay."""
    model = One()
    optimizer = OPTIMIZERS[name](model, 0.1, weight_decay=0.5)
    for _ in range(3):
        model.weight.grad = torch.zeros_like(model.weight)
        optimizer.step()
    assert model.weight.item() == pytest.approx(3.0 * 0.95**3, rel=1e-6)
