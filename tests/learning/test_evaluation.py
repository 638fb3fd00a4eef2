import math

import pytest
import torch
from samples import drawn, small_model
from sklearn.metrics import precision_recall_fscore_support

from mnist_lstm.learning.evaluation import (
    accuracy_by_rows,
    by_class,
    calibration,
    mean_answer,
    moved,
    overall,
    read_row_by_row,
)
from mnist_lstm.learning.model import infer

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 2.0, 0.0], [2.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 1, 0, 0], dtype=torch.uint8)


def test_overall() -> None:
    right, wrong = -math.log(math.e**2 / (math.e**2 + 2)), -math.log(1 / (math.e**2 + 2))
    figures = overall(LOGITS, LABELS)
    assert figures["accuracy"] == 0.75
    assert figures["loss"] == pytest.approx((3 * right + wrong) / 4)


def test_by_class() -> None:
    third = pytest.approx(2 / 3)
    assert by_class(LOGITS, LABELS, ("cat", "dog", "owl")) == [
        {"class": "cat", "images": 3, "precision": 1, "recall": third, "f1": pytest.approx(0.8)},
        {"class": "dog", "images": 1, "precision": 0.5, "recall": 1, "f1": third},
        {"class": "owl", "images": 0, "precision": 0, "recall": 0, "f1": 0},  # not defined
    ]


def test_scores_by_class_are_those_of_scikit_learn() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 7, generator=random)
    logits[:, 5] = -9  # never the answer
    labels = torch.randint(6, (500,), generator=random, dtype=torch.uint8)  # 6 is never the label
    expected = precision_recall_fscore_support(
        labels.numpy(), logits.argmax(dim=1).numpy(), labels=range(7), zero_division=0
    )
    found = by_class(logits, labels, "abcdefg")
    for name, values in zip(("precision", "recall", "f1", "images"), expected, strict=True):
        assert [each[name] for each in found] == values.tolist()


@pytest.mark.parametrize("implementation", ["fused", "unrolled"])
def test_reading_row_by_row_ends_in_the_models_answer(implementation: str) -> None:
    model, data = small_model(implementation), drawn(images=20, seed=0)
    after_rows = read_row_by_row(model, data.pixels.split(8))
    assert after_rows.shape == (20, 8, 2)
    assert model.training
    assert torch.equal(after_rows[:, -1], infer(model, data.pixels, batch_size=8))


def test_the_answer_after_a_row_is_that_for_an_image_cut_there() -> None:
    model, data = small_model(), drawn(images=20, seed=0)
    after_rows = read_row_by_row(model, data.pixels.split(20))
    for rows in range(1, 9):
        answer = infer(model, data.pixels[:, :rows], batch_size=20)
        torch.testing.assert_close(after_rows[:, rows - 1], answer, rtol=0, atol=1e-6)


def test_accuracy_by_rows() -> None:
    after_rows = torch.stack([LOGITS.roll(1, 0), LOGITS], dim=1)  # (4, 2, 3)
    assert accuracy_by_rows(after_rows, LABELS) == [0.25, 0.75]


def test_shifted_images_lose_only_the_pixels_that_leave_them() -> None:
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 3, 3)
    views = moved(image, 1)
    assert len(views) == 9
    assert torch.equal(views[4], image)
    assert views[0].tolist() == [[[0, 0, 0], [0, 1, 2], [0, 4, 5]]]  # down and to the right
    assert views[5].tolist() == [[[2, 3, 0], [5, 6, 0], [8, 9, 0]]]  # to the left
    assert all(view.dtype == torch.uint8 for view in views)
    assert len(moved(image, 2)) == 25


def test_the_mean_answer_is_the_mean_of_the_answers_to_each_view() -> None:
    model, data = small_model(), drawn(images=20, seed=0)
    (alone,) = moved(data.pixels, 0)
    expected = infer(model, data.pixels, batch_size=20).double().softmax(dim=1)
    torch.testing.assert_close(mean_answer(model, [alone], 8), expected)
    views = moved(data.pixels, 1)
    answers = [infer(model, view, batch_size=20).double().softmax(dim=1) for view in views]
    mean = mean_answer(model, views, 8)
    torch.testing.assert_close(mean, sum(answers, torch.zeros_like(mean)) / 9)
    torch.testing.assert_close(mean.sum(dim=1), torch.ones(20, dtype=torch.float64))


def test_a_model_whose_probabilities_are_its_accuracy_has_no_calibration_error() -> None:
    logits = torch.tensor([[0.75, 0.25]] * 3 + [[0.5, 0.5]], dtype=torch.float64).log()
    labels = torch.tensor([0, 0, 1, 0], dtype=torch.uint8)
    error = calibration(logits, labels)["calibration_error"]
    assert error == pytest.approx(3 / 4 * abs(0.75 - 2 / 3) + 1 / 4 * abs(0.5 - 1))
    calibrated = calibration(logits[[0, 1, 2, 2]], torch.tensor([0, 0, 0, 1], dtype=torch.uint8))
    assert calibrated["calibration_error"] == pytest.approx(0)


def test_coverage_counts_the_surest_answers_until_one_in_a_hundred_is_wrong() -> None:
    def covered(right: list[bool], sure: list[float]) -> float:
        logits = torch.tensor([[probability, 1 - probability] for probability in sure]).log()
        labels = torch.tensor([0 if each else 1 for each in right], dtype=torch.uint8)
        return calibration(logits, labels)["coverage_at_99"]

    sure = torch.linspace(0.999, 0.6, 200).tolist()
    assert covered([True] * 200, sure) == 1
    assert covered([True] * 150 + [False] * 50, sure) == 151 / 200  # 150 of 151 are more than 99 %
    assert covered([False] + [True] * 49 + [False] * 150, sure) == 0
    # one threshold takes all four, of which one is wrong, or none
    assert covered([True, True, True, False], [0.9] * 4) == 0
