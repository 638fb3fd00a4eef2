from itertools import pairwise

from matplotlib.backends.backend_agg import FigureCanvasAgg

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


def test_numbers_at_an_axis_do_not_touch() -> None:
    rates = (0.00041, 0.00207, 0.00243)
    figure = search([(n, {"a": r, "b": r, "c": r}, 0.1) for n, r in enumerate(rates)], "loss")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axes in figure.axes[1:]:
        texts = [text for text in axes.get_xticklabels() if text.get_text()]
        ends = [text.get_window_extent(canvas.get_renderer()) for text in texts]
        assert len(ends) >= 2
        assert all(left.x1 < right.x0 for left, right in pairwise(ends))
