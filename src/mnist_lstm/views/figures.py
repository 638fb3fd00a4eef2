"""All figures: accuracy curves, confusion, mistakes, and beliefs row by row.

One function draws one Figure from plain values. `save` writes a Figure as PNG: the same values
give the same bytes. Figures are eight inches wide, 800 pixels on a page.
N images, T rows of D pixels, C classes
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

# Okabe and Ito's colours, which people tell apart whatever their colour vision
BLUE, ORANGE = "#0072B2", "#E69F00"
SEVERAL = (BLUE, ORANGE, "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
SHADES = "Blues"  # one hue, from light to dark
PALE = "#ededed"
WIDTH = 8.0  # inches
BATCH = 36  # images in the picture of a batch
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "figure.constrained_layout.use": True,
    "figure.dpi": 200,  # sharp where a page shows two pixels as one
    "font.size": 10,
    "grid.color": PALE,
    "legend.frameon": False,
    "savefig.dpi": "figure",
    "text.parse_math": False,  # the user's own class may be called $x$
}

Inputs = ParamSpec("Inputs")
Output = TypeVar("Output")


def _styled(draw: Callable[Inputs, Output]) -> Callable[Inputs, Output]:
    """Decorate a drawing function: use this file's style and ignore the user's matplotlibrc."""

    @functools.wraps(draw)
    def drawn(*args: Inputs.args, **kwargs: Inputs.kwargs) -> Output:
        with style.context(["default", STYLE]):
            return draw(*args, **kwargs)

    return drawn


@_styled
def save(figure: Figure, path: Path) -> None:
    """Write a figure atomically as a PNG file."""
    write_atomically(path, png(figure))


@_styled
def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    content = io.BytesIO()
    # without the version of matplotlib, which is no part of the picture
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


@_styled
def accuracy_curve(
    rows: Sequence[Mapping[str, float]], published: Sequence[Mapping[str, float]] = ()
) -> Figure:
    """Accuracy over steps, from rows of curve.csv and of the published curve (may be empty)."""
    figure = Figure(figsize=(WIDTH, 4.5))
    axes = figure.add_subplot()
    _draw_splits(axes, rows, "step")
    if published:
        steps, values = _columns(published, "step", "test_accuracy")
        line = f"published script, test images: {values[-1]:.2%}"
        axes.plot(steps, values, color="black", linestyle="--", label=line, zorder=3)
    last = rows[-1]
    axes.set_title(
        f"{last['test_accuracy']:.2%} of the test images read right after {last['step']:,} steps"
    )
    axes.set_xlabel("step (updates of the weights)")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.legend(loc="lower right", title="at the last step", alignment="left")
    return figure


@_styled
def several_curves(
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    published: Sequence[Mapping[str, float]] = (),
) -> Figure:
    """Accuracy over steps of several runs, from the rows of their curve.csv, by run name.

    The upper plot has the validation images. The lower one has the test images, beside the
    published curve (may be empty), and omits the first quarter of the rows if it lies far below.
    """
    figure = Figure(figsize=(WIDTH, 7))
    panels = dict(zip(("validation", "test"), figure.subplots(2, 1, sharex=True), strict=True))
    looks = [("-", colour) for colour in SEVERAL] + [(":", colour) for colour in SEVERAL]
    drawn = list(zip(curves, curves.values(), itertools.cycle(looks), strict=False))
    for split, axes in panels.items():
        ends, lows = [], []
        for name, rows, (line, colour) in drawn:
            steps, values = _columns(rows, "step", f"{split}_accuracy")
            label = f"{name}: {values[-1]:.2%}"
            axes.plot(steps, values, color=colour, linestyle=line, marker=".", label=label)
            ends.append(values[-1])
            lows.append(values[len(values) // 4])
        if published and split == "test":
            steps, values = _columns(published, "step", "test_accuracy")
            label = f"published script: {values[-1]:.2%}"
            axes.plot(steps, values, color="black", linestyle="--", label=label, zorder=3)
        axes.set_title(f"Accuracy on {split} images")
        axes.set_ylabel("accuracy (% of the images)")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_ylim(bottom=max(0, min(lows) - 0.02), top=min(1.002, max(ends) + 0.02))
        axes.legend(loc="lower right", title="at the last step", alignment="left")
    axes.set_xlabel("step (updates of the weights)")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return figure


@_styled
def confusion(actual: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> Figure:
    """The confusion matrix, from labels (N,), predictions (N,) and class names.

    Only mistakes are coloured: next to the correct answers they would all look like zero.
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
    for (row, column), count in np.ndenumerate(counts):
        if count:
            dark = mistakes[row, column] > 0.6 * mistakes.max()
            color, weight = "white" if dark else "black", "bold" if row == column else "normal"
            axes.text(
                column, row, f"{count:,}", ha="center", va="center", color=color, weight=weight
            )
    _name_classes(axes.xaxis, classes, upright=_short(classes))
    _name_classes(axes.yaxis, classes)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("actual class")
    shares = counts.diagonal() / counts.sum(axis=1).clip(1)
    recall = axes.secondary_yaxis("right")
    recall.set_ylabel("read right (% of the images of that class)")
    _name_classes(recall.yaxis, [f"{share:.1%}" for share in shares])
    axes.set_title(f"{mistakes.sum():,} of {len(actual):,} test images read wrong (a cell: images)")
    return figure


@_styled
def confident_mistakes(
    images: np.ndarray, actual: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> Figure:
    """The wrong answers with the highest probabilities, in falling order.

    (N, T, D) pixels 0–255, (N,) labels, (N, C), a name a class.
    """
    columns, lines = 6, 3
    predicted, certainty = probabilities.argmax(axis=1), probabilities.max(axis=1)  # (N,), (N,)
    wrong = np.flatnonzero(predicted != actual)
    surest = wrong[np.argsort(-certainty[wrong], kind="stable")][: columns * lines]
    lines = max(-(-len(surest) // columns), 1)
    figure = Figure(figsize=(WIDTH, 0.5 + 1.75 * lines))
    figure.suptitle(f"The surest of {len(wrong):,} mistakes on {len(actual):,} test images")
    cells = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in cells[len(surest) :]:
        axes.set_axis_off()
    for axes, index in zip(cells, surest, strict=False):
        _draw_image(axes, images[index])
        names = classes[actual[index]], classes[predicted[index]]
        title = (" read as " if _short(classes) else "\nread as ").join(names)
        axes.set_title(f"{title}\n{certainty[index]:.2%} sure", loc="center", size=10)
    return figure


@_styled
def batch(images: np.ndarray, distorted: np.ndarray | None) -> Figure:
    """Training images, each above its distorted version if there is one.

    (N, T, D) pixels 0–255, N at most BATCH; the distorted ones, or None.
    """
    kinds = [images] if distorted is None else [images, distorted]
    columns = 12
    lines = -(-len(images) // columns)
    figure = Figure(figsize=(WIDTH, 0.5 + 0.75 * lines * len(kinds)))
    figure.suptitle(
        "The first images of the training set, as the model is given them"
        if distorted is None
        else "Images of the training set, and below each how a step of training distorts it"
    )
    cells = figure.subplots(lines * len(kinds), columns, squeeze=False)
    for axes in cells.ravel():
        axes.set_axis_off()
    for row, kind in enumerate(kinds):
        for axes, image in zip(cells[row :: len(kinds)].ravel(), kind, strict=False):
            axes.set_axis_on()
            _draw_image(axes, image)
    return figure


@_styled
def accuracy_by_rows(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Accuracy after 1, 2, … T pixel rows, from the rows of reading.csv."""
    figure = Figure(figsize=(WIDTH, 4.5))
    axes = figure.add_subplot()
    _draw_splits(axes, rows, "rows")
    axes.set_title("Accuracy when cut short: the model is trained to answer after the last row")
    axes.set_xlabel(f"rows read, from the top (of {len(rows)})")
    axes.set_xlim(0, len(rows) * 1.02)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 4, 10]))
    axes.legend(loc="upper left", title="after the last row", alignment="left")
    return figure


@_styled
def belief(
    images: np.ndarray, actual: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> Figure:
    """The first image of each class, beside the model's probabilities after each pixel row.

    (N, T, D) pixels 0–255, (N,) labels, (N, T, C), a name a class.
    """
    found = (np.flatnonzero(actual == label)[:1] for label in range(len(classes)))
    chosen = [int(index) for indices in found for index in indices]
    return _beliefs(
        "What the model believes after each row, for the first test image of each class",
        images[chosen],
        [classes[label] for label in actual[chosen]],
        probabilities[chosen],
        classes,
    )


@_styled
def belief_of_one(
    name: str, image: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> Figure:
    """An unlabelled image, beside the model's probabilities after each pixel row.

    (T, D) pixels 0–255, (T, C), a name a class.
    """
    title = f"What the model believes after each row of {name}"
    return _beliefs(title, image[None], [""], probabilities[None], classes)


def _beliefs(
    title: str,
    images: np.ndarray,
    titles: Sequence[str],
    probabilities: np.ndarray,
    classes: Sequence[str],
) -> Figure:
    """Draw images, two a line, each with its title and its probabilities beside it."""
    across = min(2, len(images))
    lines = -(-len(images) // across)
    short = _short(classes)
    figure = Figure(
        figsize=(WIDTH * (across + 1) / 3, 1 + 1.85 * lines if short else 1.9 + 1.55 * lines)
    )
    figure.suptitle(title)
    cells = figure.subplots(lines, 2 * across, squeeze=False, width_ratios=[1, 1.4] * across)
    cells = cells.reshape(-1, 2)
    for axes in cells[len(images) :].ravel():
        axes.set_axis_off()
    for number, (left, right) in enumerate(cells[: len(images)]):
        _draw_image(left, images[number])
        answer = probabilities[number, -1].argmax()
        left.set_title(titles[number], size=10)
        right.set_title(
            f"read as {classes[answer]} ({probabilities[number, -1, answer]:.0%})", size=10
        )
        left.set_ylabel("row")
        left.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        shades = right.imshow(
            probabilities[number], cmap=SHADES, vmin=0, vmax=1, aspect="auto", interpolation="none"
        )
        right.grid(visible=False)
        named = short or number >= len(images) - across  # long names below the last ones alone
        _name_classes(right.xaxis, classes if named else [""] * len(classes), upright=short)
        right.set_yticks([])
    figure.colorbar(
        shades,
        ax=list(cells.ravel()),
        location="bottom",
        shrink=0.5,
        aspect=40,
        label="probability (%)",
        format=PercentFormatter(1),
    )
    return figure


def _columns(rows: Sequence[Mapping[str, float]], *names: str) -> tuple[list[float], ...]:
    return tuple([row[name] for row in rows] for name in names)


def _draw_splits(axes: Axes, rows: Sequence[Mapping[str, float]], x: str) -> None:
    """The accuracy on both splits over the column `x`."""
    for split, colour, marker in (("validation", ORANGE, "s"), ("test", BLUE, "o")):
        xs, values = _columns(rows, x, f"{split}_accuracy")
        line = f"{split} images: {values[-1]:.2%}"
        axes.plot(xs, values, color=colour, marker=marker, markersize=4, label=line)
    axes.set_ylabel("accuracy (% of the images)")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(top=1)


def _draw_image(axes: Axes, image: np.ndarray) -> None:
    rows, pixels = image.shape
    edges = (0.5, pixels + 0.5, rows + 0.5, 0.5)  # the first row is row 1
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=255, extent=edges)
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(visible=True, color=PALE)


def _name_classes(axis: Axis, names: Sequence[str], *, upright: bool = True) -> None:
    axis.set_ticks(range(len(names)), names, rotation=0 if upright else 90)


def _short(classes: Sequence[str]) -> bool:
    """Whether the class names are short enough to stand side by side, like digits."""
    return max(map(len, classes)) < 3
