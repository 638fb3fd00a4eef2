"""Figures of images: a model's answers row by row, its mistakes, and a batch.

These figures have up to a hundred small parts, and the place of each part is known. So each figure
is drawn on a sheet measured in inches, and matplotlib need not compute a layout [constrained layout
took 3 s for the answers row by row].
N images, T rows of D pixels, C classes
"""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mnist_lstm.views.figures import (
    LETTER,
    PALE,
    RED,
    SHADES,
    SIZE,
    WIDTH,
    short,
    shortened,
    styled,
)

BATCH = 36  # images in the picture of a batch
TITLE = 0.45  # inches: height of the title at the top of a sheet
LINE = 0.17  # inches: height of a line of text
MARGIN = 0.1  # inches
MOST = 20  # letters of a name below the answers
SMALL = 8  # points: of the names of classes that are longer than digits


@styled
def confident_mistakes(
    images: np.ndarray, actual: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> Figure:
    """The wrong answers with the highest probabilities, the highest first.

    `images` (N, T, D) has pixels 0–255, `actual` (N,) labels, `probabilities` (N, C).
    """
    columns, most = 6, 18
    predicted, certainty = probabilities.argmax(axis=1), probabilities.max(axis=1)  # (N,), (N,)
    wrong = np.flatnonzero(predicted != actual)
    surest = wrong[np.argsort(-certainty[wrong], kind="stable")][:most]
    between, size = (" read as ", SIZE) if short(classes) else ("\nread as ", SMALL)
    texts = LINE * (2 + between.count("\n"))
    cell, width = WIDTH / columns, WIDTH / columns - 2 * MARGIN
    height = _height(images, width)
    step = texts + height + 2 * MARGIN
    lines = max(-(-len(surest) // columns), 1)
    title = f"The most confident of {len(wrong):,} mistakes on {len(actual):,} test images"
    figure, sheet = _sheet(WIDTH, TITLE + lines * step, title)
    for index, (left, top) in zip(surest, _cells(columns, cell, TITLE, step), strict=False):
        names = [shortened(classes[label[index]], 11) for label in (actual, predicted)]
        words = f"{between.join(names)}\n{certainty[index]:.2%} sure"
        place = left + cell / 2, top + texts
        sheet.text(*place, words, ha="center", va="bottom", linespacing=1.1, size=size)
        _draw_image(sheet, images[index], left + MARGIN, top + texts + MARGIN / 2, width, height)
    return figure


@styled
def batch(
    images: np.ndarray, labels: np.ndarray, classes: Sequence[str], distorted: np.ndarray | None
) -> Figure:
    """Training images below their class names, each above its distorted version if there is one.

    `images` (N, T, D) has pixels 0–255, N at most BATCH, and `labels` (N,). `distorted` is of the
    same shape as `images`, or None.
    """
    kinds = [images] if distorted is None else [images, distorted]
    columns = 12
    cell = (WIDTH - MARGIN) / columns
    width = cell - MARGIN / 2
    height = _height(images, width)
    step = LINE + len(kinds) * (height + MARGIN / 2) + MARGIN
    title = (
        "The first images of the training set, as the model gets them"
        if distorted is None
        else "Images of the training set, and below each its distorted form in a training step"
    )
    figure, sheet = _sheet(WIDTH, TITLE + -(-len(images) // columns) * step, title)
    for index, (left, top) in zip(
        range(len(images)), _cells(columns, cell, TITLE, step), strict=False
    ):
        name, middle = classes[labels[index]], left + cell / 2 + MARGIN / 2
        sheet.text(middle, top + LINE, shortened(name, 10), ha="center", va="bottom", size=SMALL)
        for number, kind in enumerate(kinds):
            below = top + LINE + number * (height + MARGIN / 2)
            _draw_image(sheet, kind[index], left + MARGIN * 3 / 4, below, width, height)
    return figure


@styled
def belief(
    images: np.ndarray, actual: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> Figure:
    """The first image of each class, beside the model's probabilities after each pixel row.

    `images` (N, T, D) has pixels 0–255, `actual` (N,) labels, `probabilities` (N, T, C).
    """
    found = (np.flatnonzero(actual == label)[:1] for label in range(len(classes)))
    chosen = [int(index) for indices in found for index in indices]
    return _beliefs(
        "The model's answer after each row, for the first test image of each class",
        images[chosen],
        actual[chosen],
        probabilities[chosen],
        classes,
    )


@styled
def belief_of_one(
    name: str, image: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> Figure:
    """An unlabelled image, beside the model's probabilities after each pixel row.

    `image` (T, D) has pixels 0–255, `probabilities` (T, C).
    """
    title = f"The model's answer after each row of {name}"
    return _beliefs(title, image[None], None, probabilities[None], classes)


def _beliefs(
    title: str,
    images: np.ndarray,
    actual: np.ndarray | None,
    probabilities: np.ndarray,
    classes: Sequence[str],
) -> Figure:
    """Draw images, two on a line, each beside its probabilities. `actual` (N,): labels, or None."""
    across = min(2, len(images))
    lines = -(-len(images) // across)
    cell = WIDTH / 2 if across == 2 else WIDTH * 2 / 3
    upright = short(classes)
    height = 1.3
    step = height + 2 * LINE + MARGIN + (LINE if upright else 0)
    longest = min(MOST, max(map(len, classes)))
    names = 0 if upright else 0.09 * longest  # turned, below the last line
    bottom = TITLE + lines * step + names
    figure, sheet = _sheet(cell * across, bottom + 0.85, title)
    for number, (left, top) in zip(
        range(len(images)), _cells(across, cell, TITLE, step), strict=False
    ):
        label = None if actual is None else int(actual[number])
        last = upright or number >= len(images) - across
        box = (left + 0.5, top + LINE + MARGIN / 2, cell - 0.6, height)
        _draw_belief(sheet, box, images[number], probabilities[number], label, classes, last)
    _draw_scale(sheet, sheet.get_xlim()[1] / 2, bottom + 0.2)
    return figure


def _draw_belief(
    sheet: Axes,
    box: tuple[float, float, float, float],
    image: np.ndarray,
    probabilities: np.ndarray,
    label: int | None,
    classes: Sequence[str],
    named: bool,  # whether to write the class names below
) -> None:
    """Draw an image and its probabilities (T, C) into `box`: left, top, width, height."""
    left, top, room, height = box
    rows, count = probabilities.shape
    width = min(height * image.shape[1] / rows, room / 2)
    _draw_image(sheet, image, left, top, width, height)
    for row in _ticks(rows):
        place = top + height * (row - 0.5) / rows
        sheet.text(left - 0.05, place, f"{row}", ha="right", va="center", size=8)
    sheet.text(left - 0.32, top + height / 2, "row", ha="center", va="center", rotation=90)

    beside = left + width + 0.2
    column = (left + room - beside) / count
    sheet.imshow(
        probabilities,
        cmap=SHADES,
        vmin=0,
        vmax=1,
        aspect="auto",
        interpolation="none",
        extent=(beside, left + room, top + height, top),
    )
    _draw_edge(sheet, beside, top, left + room - beside, height)
    upright = short(classes)
    size = SIZE if upright else SMALL
    # a letter more, so that names stay apart; a turned name is as wide as a line is high
    wide = LETTER * SIZE * (1 + max(map(len, classes))) if upright else 0.9 * LINE
    nth = max(1, -int(-wide // column))  # the names of all classes, or of each second, third, …
    for number, name in enumerate(classes if named else ()):
        if number % nth:
            continue
        sheet.text(
            beside + column * (number + 0.5),
            top + height + 0.05,
            shortened(name, MOST),
            ha="center",
            va="top",
            rotation=0 if upright else 90,
            weight="bold" if number == label else "normal",
        )
    answer = int(probabilities[-1].argmax())
    read = f"answer: {shortened(classes[answer], 13)} ({probabilities[-1, answer]:.0%})"
    wrong = label is not None and answer != label
    words, color, weight = (f"{read}: wrong", RED, "bold") if wrong else (read, "black", "normal")
    above = top - 0.03
    place, side = (beside, "left") if upright else (left + room, "right")
    sheet.text(place, above, words, ha=side, va="bottom", color=color, weight=weight, size=size)
    if label is not None:
        sheet.text(left, above, shortened(classes[label], 13), va="bottom", size=size)


def _draw_scale(sheet: Axes, middle: float, top: float) -> None:
    """Draw the scale: which shade stands for which probability."""
    width, height = 3.0, 0.1
    left = middle - width / 2
    shades = np.linspace(0, 1, 256)[None]
    extent = (left, left + width, top + height, top)
    sheet.imshow(shades, cmap=SHADES, vmin=0, vmax=1, aspect="auto", extent=extent)
    for share in (0, 0.5, 1):
        below = top + height + 0.04
        sheet.text(left + width * share, below, f"{share:.0%}", ha="center", va="top", size=8)
    words = "probability of each class, after each row"
    sheet.text(middle, top + height + 0.22, words, ha="center", va="top")


def _sheet(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """A figure and its only Axes, whose coordinates are inches from the upper left corner."""
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("none")
    sheet = figure.add_axes((0, 0, 1, 1))
    sheet.set_axis_off()
    sheet.set_xlim(0, width)
    sheet.set_ylim(height, 0)
    sheet.set_title(title, x=MARGIN / width, y=1 - 0.3 / height)
    return figure, sheet


def _cells(columns: int, width: float, top: float, height: float) -> Iterator[tuple[float, float]]:
    """Left and top of each cell, line by line, without end."""
    line = 0
    while True:
        yield from ((column * width, top + line * height) for column in range(columns))
        line += 1


def _ticks(rows: int) -> list[int]:
    """The rows with a number: the first, the last, and multiples of ten that are not too near."""
    return [1, *range(10, rows - 3, 10), rows]


def _height(images: np.ndarray, width: float) -> float:
    """The height of images (N, T, D) that are drawn `width` wide."""
    return width * images.shape[1] / images.shape[2]


def _draw_image(
    sheet: Axes, image: np.ndarray, left: float, top: float, width: float, height: float
) -> None:
    extent = (left, left + width, top + height, top)
    sheet.imshow(image, cmap="gray_r", vmin=0, vmax=255, aspect="auto", extent=extent)
    _draw_edge(sheet, left, top, width, height)


def _draw_edge(sheet: Axes, left: float, top: float, width: float, height: float) -> None:
    sheet.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=PALE))
