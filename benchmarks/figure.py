"""Draw the benchmark's figure: the whole job of each contender beside the floor."""

from collections.abc import Mapping
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from benchmarks.results import EVALUATIONS, STEPS, floors
from benchmarks.table import duration
from mnist_lstm.views.figures import BLUE, ORANGE, STYLE, WIDTH


def whole_jobs(results: Mapping[str, Any]) -> Figure:
    """One bar for each measured contender, in the table's order, with its two parts coloured."""
    shown = [found for found in results["contenders"] if "job" in found["summary"]]
    below = floors(results["contenders"])
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, 1.3 + 0.45 * len(shown)))
        axes = figure.add_subplot()
        names = [f"{found['name']}\n{found['precision']}" for found in shown]
        places = range(len(shown))
        steps = [STEPS * found["summary"]["step"] for found in shown]
        evaluations = [EVALUATIONS * found["summary"]["evaluation"] for found in shown]
        axes.barh(places, steps, color=BLUE, height=0.6, label=f"{STEPS:,} steps")
        axes.barh(
            places,
            evaluations,
            left=steps,
            color=ORANGE,
            height=0.6,
            label=f"{EVALUATIONS} evaluations",
        )
        longest = max(found["summary"]["job"] for found in shown)
        marked = False
        for place, found in zip(places, shown, strict=True):
            job, floor = found["summary"]["job"], below.get(found["precision"])
            text = duration(job)
            if floor is not None and found["contender"] != "floor":
                text += f", {job / floor:.1f} × floor"
                axes.plot(
                    [floor] * 2,
                    [place - 0.4, place + 0.4],
                    color="black",
                    label=None if marked else "floor of that precision",
                )
                marked = True
            axes.text(job + 0.01 * longest, place, text, va="center")
        axes.set_yticks(list(places), names)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()  # the first one on top
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 1.5 * longest)  # room for the figures
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel("seconds for the whole job")
        axes.set_title(f"{STEPS:,} steps and {EVALUATIONS} evaluations, on one machine")
        figure.legend(loc="outside lower right", ncols=3)
    return figure
