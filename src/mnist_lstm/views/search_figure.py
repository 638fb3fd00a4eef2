"""The picture of a search: how it got better, and what each parameter did to the objective."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from mnist_lstm.views.figures import BLUE, ORANGE, WIDTH, styled

BESIDE = 3  # plots of parameters in a row
TICKS = 3  # spaces between numbers at most: five numbers such as 0.0015 would touch
SPREAD = 20.0  # from this ratio of largest and smallest value on, an axis is logarithmic


@styled
def search(trials: Sequence[tuple[int, Mapping[str, Any], float]], objective: str) -> Figure:
    """Draw the complete trials of a search: number, values by key, objective (less is better).

    The upper plot has the objective of each trial and the best one so far. Below, a plot for each
    key has the objective over the key's values; later trials are darker.
    """
    keys = list(trials[0][1])
    below = -(-len(keys) // BESIDE)
    figure = Figure(figsize=(WIDTH, 3.2 + 2.4 * below))
    grid = figure.add_gridspec(1 + below, BESIDE, height_ratios=[3.2, *[2.4] * below])
    axes = figure.add_subplot(grid[0, :])
    numbers = [number for number, _, _ in trials]
    reached = np.array([value for _, _, value in trials])
    axes.scatter(numbers, reached, color=BLUE, s=18, label="a trial", zorder=3)
    best = np.minimum.accumulate(reached)
    axes.step(numbers, best, where="post", color=ORANGE, label="the best so far")
    axes.set_title(f"{best[-1]:.4g} {objective} after {len(trials)} complete trials")
    axes.set_xlabel("trial")
    axes.set_ylabel(objective)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if _is_wide(reached):
        axes.set_yscale("log")
        _mark(axes.yaxis, _round(*axes.get_ylim()))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    shared: Axes = axes
    for place, key in enumerate(keys):
        row, column = divmod(place, BESIDE)
        axes = figure.add_subplot(grid[1 + row, column], sharey=shared)
        _slice(axes, key, [values[key] for _, values, _ in trials], reached)
        axes.tick_params(labelleft=column == 0)
        if place == 0:
            axes.set_title("later trials are darker", fontsize="medium")
    return figure


def _slice(axes: Axes, key: str, values: Sequence[Any], reached: np.ndarray) -> None:
    """The objective over one key. Values that are no numbers stand side by side, in their order."""
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    places = np.array(values, dtype=float) if numeric else np.zeros(len(values))
    if not numeric:
        names = sorted({str(value) for value in values})
        places = np.array([names.index(str(value)) for value in values], dtype=float)
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
    else:
        _scale(axes, places)
    ages = np.linspace(0.35, 1, len(reached))
    axes.scatter(places, reached, c=ages, cmap="Blues", vmin=0, vmax=1, s=18, zorder=3)
    axes.set_xlabel(key)


def _scale(axes: Axes, values: np.ndarray) -> None:
    """Scale the x axis for numbers. It is marked at the values, if these are few and far apart.

    Values that are neither whole nor tried twice get round marks: they may be any of a range.
    """
    if _is_wide(values):
        axes.set_xscale("log")
    tried = np.unique(values)
    places = np.log(tried) if _is_wide(values) else tried
    gaps = np.diff(places)
    are_chosen = len(tried) < len(values) or bool((tried % 1 == 0).all())
    are_apart = len(tried) < 2 or gaps.min() >= (places[-1] - places[0]) / (TICKS + 1)
    if len(tried) <= TICKS + 1 and are_chosen and are_apart:
        _mark(axes.xaxis, tried)
    elif _is_wide(values):
        _mark(axes.xaxis, _round(values.min(), values.max()))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(TICKS))


def _is_wide(values: np.ndarray) -> bool:
    return bool(values.min() > 0 and values.max() / values.min() >= SPREAD)


def _round(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis, as many as it has room for."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for digits in ((1, 3), (1,)):
        every = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
        found = [number for number in every if low <= number <= high]
        if len(found) <= TICKS + 1:
            break
    return found[:: -(-len(found) // (TICKS + 1))]


def _mark(axis: Axis, numbers: Sequence[float] | np.ndarray) -> None:
    # matplotlib's own numbers at a logarithmic axis are formulas, which our style writes as TeX
    axis.set_minor_locator(NullLocator())
    axis.set_ticks(list(numbers), [f"{number:g}" for number in numbers])
