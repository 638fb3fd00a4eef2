from dataclasses import replace

import pytest
import torch
from learners import Learner
from samples import PROJECT, drawn, small_model

from mnist_lstm.data.sequences import Batches, Sequences
from mnist_lstm.learning.fit import Evaluation, fit
from mnist_lstm.pipeline.result_files import read_rows


def trained(
    model: torch.nn.Module,
    train: Sequences,
    steps: int,
    *,
    seed: int = 0,
    every: int = 1000,
    batch: int = 16,
    rate: float = 0.01,
) -> list[Evaluation]:
    optimizer = torch.optim.Adam([w for w in model.parameters() if w.requires_grad], lr=rate)
    batches = Batches(len(train), batch, torch.Generator().manual_seed(seed))
    _, rows, pixels = train.pixels.shape
    held_out = drawn(50, seed=7, rows=rows, pixels=pixels)
    return [
        evaluation
        for evaluation in fit(
            model,
            optimizer,
            batches,
            train,
            held_out,
            held_out,
            start=0,
            steps=steps,
            eval_every=every,
            eval_batch_size=20,
        )
        if evaluation
    ]


def weights_after(seed: int, implementation: str = "fused") -> torch.Tensor:
    torch.manual_seed(seed)
    model = small_model(implementation)
    trained(model, drawn(40, seed=1), 5, seed=seed)
    return torch.cat([weight.flatten() for weight in model.parameters()])


def test_it_memorises_32_images_with_random_labels() -> None:
    pixels = torch.randint(0, 256, (32, 8, 8), dtype=torch.uint8)
    data = Sequences(pixels, torch.randint(0, 2, (32,), dtype=torch.uint8), 2, "drawn", {})
    (last,) = trained(small_model(dropout=0.0, hidden_size=32), data, 400, batch=32, rate=0.003)
    assert last.train_accuracy == 1


def test_it_learns_classes_that_differ_only_in_the_order_of_rows() -> None:
    (last,) = trained(small_model(), drawn(200, seed=1), 80)
    assert last.test_accuracy > 0.95


def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_seed_others() -> None:
    assert torch.equal(weights_after(seed=0), weights_after(seed=0))
    assert not torch.allclose(weights_after(seed=0), weights_after(seed=1))


def test_fused_and_unrolled_train_alike() -> None:
    torch.testing.assert_close(weights_after(0), weights_after(0, "unrolled"), rtol=0, atol=1e-4)


def test_it_evaluates_at_multiples_and_at_the_end() -> None:
    measured = trained(small_model(), drawn(40, seed=1), 25, every=10)
    assert [m.step for m in measured] == [10, 20, 25]
    assert [m.epoch for m in measured] == [4, 8, 10]  # of 40 images, 16 a step


class Pixel(torch.nn.Module):
    """The smallest model that can be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(pixels[:, 0].float() / 255)
        return logits


def test_epochs_are_the_published_ones() -> None:
    published = read_rows(PROJECT / "data" / "published_curve.csv")
    data = drawn(55_000, seed=0, rows=1, pixels=1)
    measured = trained(Pixel(), data, 2000, every=50, batch=128)
    assert [(m.step, m.epoch) for m in measured] == [(r["step"], r["epoch"]) for r in published]


def test_measuring_changes_nothing() -> None:
    results = []
    for every in (1, 1000):
        torch.manual_seed(0)
        model = small_model()
        results.append(trained(model, drawn(40, seed=1), 6, every=every)[-1])
    assert results[0] == results[1]


@pytest.mark.parametrize("beyond", [False, True])
def test_the_test_images_only_report(beyond: bool) -> None:
    """With other test images, only their accuracy changes; weights and all other values do not."""
    learner = Learner(beyond=beyond)
    mine = learner.run(0, 10)
    other = Learner(beyond=beyond)
    other.test = replace(other.test, labels=1 - other.test.labels)
    others = other.run(0, 10)
    assert torch.equal(learner.weights(), other.weights())
    for one, its in zip(mine, others, strict=True):
        assert its.test_accuracy == pytest.approx(1 - one.test_accuracy)
        assert replace(its, test_accuracy=one.test_accuracy) == one
