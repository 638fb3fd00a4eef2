from collections.abc import Sequence
from itertools import pairwise

import pytest
from matplotlib.axes import Axes

from mnist_lstm.views import figures
from mnist_lstm.views.search_figure import search

TRIALS = [
    (0, {"train.learning_rate": 0.001, "model.cell": "lstm"}, 0.3),
    (2, {"train.learning_rate": 0.1, "model.cell": "gru"}, 0.5),
    (3, {"train.learning_rate": 0.01, "model.cell": "gru"}, 0.1),
]


def test_it_has_the_best_so_far_and_a_plot_for_each_key() -> None:
    figure = search(TRIALS, "validation loss")
    above, rate, cell = figure.axes
    assert above.get_title(loc="left") == "0.1 validation loss after 3 complete trials"
    (best,) = above.lines
    assert [list(values) for values in best.get_data()] == [[0, 2, 3], [0.3, 0.3, 0.1]]
    assert [rate.get_xlabel(), cell.get_xlabel()] == ["train.learning_rate", "model.cell"]
    assert rate.get_xscale() == "log"
    assert [text.get_text() for text in cell.get_xticklabels()] == ["gru", "lstm"]
    assert figures.png(figure).startswith(b"\x89PNG")


def numbers_at(axes: Axes) -> list[str]:
    """The numbers at the x axis, which must not touch each other."""
    low, high = axes.get_xlim()
    texts = [
        text
        for place, text in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        if text.get_text() and low <= place <= high
    ]
    ends = [text.get_window_extent() for text in texts]
    assert all(left.x1 < right.x0 for left, right in pairwise(ends))
    return [text.get_text() for text in texts]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.00041, 0.00207, 0.00243), ["0.0008", "0.0016", "0.0024"]),
        ((0.00041, 0.00207, 0.0096), ["0.001", "0.003"]),
        ((0.0003, 0.0011, 0.0096), ["0.0003", "0.001", "0.003"]),
        ((1e-6, 1e-4, 0.09), ["1e-06", "0.0001", "0.01"]),
        ((64, 128, 256, 64), ["64", "128", "256"]),
        ((16, 24, 16), ["16", "24"]),
        ((8, 64, 512, 8), ["8", "64", "512"]),
        ((64, 256), ["64", "256"]),
        ((128, 128), ["128"]),
        ((0.1, 0.1), ["0.1"]),
        ((32, 33, 256), ["100", "200"]),
    ],
)
def test_numbers_at_an_axis_can_be_read(values: Sequence[float], expected: list[str]) -> None:
    trials = [(n, {"a": v, "b": v, "c": v}, 0.1) for n, v in enumerate(values)]
    figure = search(trials, "loss")
    figures.styled(figure.draw_without_rendering)()
    for axes in figure.axes[1:]:
        assert numbers_at(axes) == expected


def test_losses_far_apart_are_on_a_logarithmic_axis_with_plain_numbers() -> None:
    trials = [(n, {"a": n}, loss) for n, loss in enumerate((0.02, 0.3, 2.3))]
    above, below = search(trials, "loss").axes
    assert above.get_yscale() == below.get_yscale() == "log"
    assert [text.get_text() for text in above.get_yticklabels()] == ["0.03", "0.1", "0.3", "1"]
