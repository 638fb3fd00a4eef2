"""Figures of numbers: accuracy curves and the confusion matrix; and writing figures as PNG.

Each function draws one Figure from plain values. `save` writes a Figure as PNG: the same values
give the same bytes. Figures are eight inches wide, and 800 pixels wide on a page.
N images, C classes
"""

import functools
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from mnist_lstm.files import write_atomically

# Okabe and Ito's colours: people with any kind of colour vision can distinguish them
BLUE, ORANGE, RED = "#0072B2", "#E69F00", "#D55E00"
SEVERAL = (BLUE, ORANGE, "#009E73", RED, "#CC79A7", "#56B4E9", "#000000")
SHADES = "Blues"  # one hue, from light to dark
PALE = "#ededed"
WIDTH = 8.0  # inches
SIZE = 10  # points: of a text
LETTER = 0.0085  # inches: width of a letter, for each point of its size
SMALLEST = 4  # points: a number that would be smaller is left out
FEW = 7  # curves whose legend has room beside them in the plot
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "figure.constrained_layout.use": True,
    "figure.dpi": 200,  # sharp where a page shows two pixels as one
    "font.size": SIZE,
    "grid.color": PALE,
    "legend.frameon": False,
    "savefig.dpi": "figure",
    "text.parse_math": False,  # a class of the user's own data set may be called $x$
}

Inputs = ParamSpec("Inputs")
Output = TypeVar("Output")


def styled(draw: Callable[Inputs, Output]) -> Callable[Inputs, Output]:
    """Decorate a drawing function: use this file's style and ignore the user's matplotlibrc."""

    @functools.wraps(draw)
    def drawn(*args: Inputs.args, **kwargs: Inputs.kwargs) -> Output:
        with style.context(["default", STYLE]):
            return draw(*args, **kwargs)

    return drawn


def save(figure: Figure, path: Path) -> None:
    """Write a figure atomically as a PNG file."""
    write_atomically(path, png(figure))


@styled
def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    content = io.BytesIO()
    # matplotlib's version is left out, so that the bytes depend on the picture alone
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


@styled
def accuracy_curve(
    rows: Sequence[Mapping[str, float]], published: Sequence[Mapping[str, float]] = ()
) -> Figure:
    """Accuracy over the steps, from rows of curve.csv and of the published curve (may be empty)."""
    figure = Figure(figsize=(WIDTH, 4.5))
    axes = figure.add_subplot()
    steps, values = _columns(rows, "step", "train_accuracy")
    line = f"batch just trained on: {values[-1]:.2%}"
    axes.plot(steps, values, color="#999999", linewidth=1, label=line, zorder=1.5)
    _draw_splits(axes, rows, "step")
    if published:
        steps, values = _columns(published, "step", "test_accuracy")
        line = f"published script, test images: {values[-1]:.2%}"
        axes.plot(steps, values, color="black", linestyle="--", label=line, zorder=3)
    last = rows[-1]
    axes.set_title(
        f"{last['test_accuracy']:.2%} accuracy on the test images after {last['step']:,} steps"
    )
    axes.set_xlabel("step (updates of the weights)")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.legend(loc="lower right", title="at the last step", alignment="left")
    return figure


@styled
def several_curves(
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    published: Sequence[Mapping[str, float]] = (),
) -> Figure:
    """Accuracy of several runs over the steps, from the rows of their curve.csv, by run name.

    The upper plot has the validation images. The lower plot has the test images and the published
    curve (may be empty). Both omit the first quarter of the rows if its accuracy is much lower.
    """
    figure = Figure(figsize=(WIDTH, 7))
    panels = dict(zip(("validation", "test"), figure.subplots(2, 1, sharex=True), strict=True))
    looks = [("-", colour) for colour in SEVERAL] + [(":", colour) for colour in SEVERAL]
    drawn = list(zip(curves, curves.values(), itertools.cycle(looks), strict=False))
    for split, axes in panels.items():
        highest, lowest = [], []
        for name, rows, (line, colour) in drawn:
            steps, values = _columns(rows, "step", f"{split}_accuracy")
            label = f"{name}: {values[-1]:.2%}"
            axes.plot(steps, values, color=colour, linestyle=line, marker=".", label=label)
            highest.append(max(values))
            lowest.append(min(values[len(values) // 4 :]))
        if published and split == "test":
            steps, values = _columns(published, "step", "test_accuracy")
            label = f"published script: {values[-1]:.2%}"
            axes.plot(steps, values, color="black", linestyle="--", label=label, zorder=3)
        axes.set_title(f"Accuracy on {split} images")
        axes.set_ylabel("accuracy (% of the images)")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_ylim(bottom=max(0, min(lowest) - 0.02), top=min(1.002, max(highest) + 0.02))
        beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "fontsize": 8}
        place = {"loc": "lower right"} if len(curves) <= FEW else beside
        axes.legend(title="at the last step", alignment="left", **place)
    axes.set_xlabel("step (updates of the weights)")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return figure


@styled
def confusion(actual: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> Figure:
    """The confusion matrix, from labels (N,), predictions (N,) and class names.

    Only mistakes are coloured: on one scale with the correct answers, they would all look like
    zero.
    """
    counts = np.zeros((len(classes), len(classes)), dtype=int)  # (C, C)
    np.add.at(counts, (actual, predicted), 1)
    right = np.eye(len(classes), dtype=bool)
    mistakes = np.where(right, 0, counts)
    figure = Figure(figsize=(WIDTH, 7))
    axes = figure.add_subplot()
    axes.grid(visible=False)
    axes.imshow(mistakes, cmap=SHADES, vmax=max(1.2 * mistakes.max(), 1), aspect="auto")
    axes.imshow(np.ma.masked_where(~right, right), cmap=ListedColormap([PALE]), aspect="auto")
    cell = 6 / len(classes)  # inches, about
    high = min(SIZE, 60 * cell)  # points: of a text that is as high as a cell
    size = min(high, cell / LETTER / len(f"{counts.max():,}"))
    for (row, column), count in np.ndenumerate(counts):
        if count and size >= SMALLEST:
            dark = mistakes[row, column] > 0.6 * mistakes.max()
            color, weight = "white" if dark else "black", "bold" if row == column else "normal"
            axes.text(
                *(column, row, f"{count:,}"),
                ha="center",
                va="center",
                color=color,
                weight=weight,
                size=size,
            ).set_in_layout(False)  # the text lies inside the axes
    _name_classes(axes.xaxis, classes, high, upright=short(classes))
    _name_classes(axes.yaxis, classes, high)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("actual class")
    shares = counts.diagonal() / counts.sum(axis=1).clip(1)
    recall = axes.secondary_yaxis("right")
    recall.set_ylabel("recall (% of the images of the class)")
    _name_classes(recall.yaxis, [f"{share:.1%}" for share in shares], high)
    axes.set_title(f"{mistakes.sum():,} of {len(actual):,} test images misclassified")
    return figure


@styled
def accuracy_by_rows(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Accuracy after 1, 2, … T pixel rows, from the rows of reading.csv."""
    figure = Figure(figsize=(WIDTH, 4.5))
    axes = figure.add_subplot()
    _draw_splits(axes, rows, "rows")
    axes.set_title("Accuracy after each row; the model is trained to answer after the last one")
    axes.set_xlabel(f"number of rows read, from the top (of {len(rows)})")
    axes.set_xlim(0, len(rows) * 1.02)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 4, 10]))
    axes.legend(loc="upper left", title="after the last row", alignment="left")
    return figure


def _columns(rows: Sequence[Mapping[str, float]], *names: str) -> tuple[list[float], ...]:
    return tuple([row[name] for row in rows] for name in names)


def _draw_splits(axes: Axes, rows: Sequence[Mapping[str, float]], x: str) -> None:
    """Draw the accuracy on both splits over the column `x`."""
    for split, colour, marker in (("validation", ORANGE, "s"), ("test", BLUE, "o")):
        xs, values = _columns(rows, x, f"{split}_accuracy")
        line = f"{split} images: {values[-1]:.2%}"
        axes.plot(xs, values, color=colour, marker=marker, markersize=4, label=line)
    axes.set_ylabel("accuracy (% of the images)")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(top=1)


def _name_classes(axis: Axis, names: Sequence[str], size: float, *, upright: bool = True) -> None:
    names = [shortened(name, 30) for name in names]
    axis.set_ticks(range(len(names)), names, rotation=0 if upright else 90, size=size)


def shortened(name: str, most: int) -> str:
    """A name of `most` letters at most; `…` stands for what is cut off."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def short(classes: Sequence[str]) -> bool:
    """Whether the class names are short enough to stand side by side, like digits."""
    return max(map(len, classes)) < 3
