"""Compare runs: parameters, metrics, curves, and whether a difference may be chance."""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_lstm import UserError
from mnist_lstm.commands import RUN, note, read_history, write_chosen

if TYPE_CHECKING:
    from mnist_lstm.runs.comparison import Paired
    from mnist_lstm.runs.history import History, Partial, Result
    from mnist_lstm.runs.listing import Run
    from mnist_lstm.runs.recipe_comparison import RecipeComparison

HELP = f"""\
Print the parameters in which the runs differ and their final metrics side by side, and draw their
curves in one picture. Then compare the first run with each of the others: does one model classify
more test images correctly than chance explains? The answer is McNemar's exact test on the answers
of both models to the same images. Of twenty comparisons of equally good models, at most one has
p < 0.05 on average.

A RUN may also be a recipe: a file such as recipes/fast.yaml, or the name of a parent run in MLflow,
"seeds of fast". All of them must be recipes then. The seeds that were trained of each, or that have
records, are compared: is one recipe better than the other, whatever the seed? If both have the same
seeds, the differences of each seed are tested (paired t-test), otherwise the means (Welch's test).
No picture is drawn.

{RUN} `compare` also takes the commit of a run of which only the small tables are here.

Exit code: 0 when all runs were compared, 1 when the answers of some runs cannot be compared with
those of the first run (other test images, or no answers here), or some metrics of a recipe with
those of the first (other images), 2 when a RUN fits no run or several, or a recipe has fewer than
two seeds."""


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("first", metavar="RUN", help="the run that the others are compared with")
    parser.add_argument("others", metavar="RUN", nargs="+", help="another run; may be repeated")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="file for the picture of runs (default: comparison.png in the project's folder)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object with all values")


def run(arguments: argparse.Namespace) -> int:
    """Find the runs, compare them, draw the curves, print the comparison."""
    from mnist_lstm.pipeline import stage
    from mnist_lstm.runs import listing, recipe_comparison
    from mnist_lstm.runs.comparison import differing, pair
    from mnist_lstm.views import figures

    root = stage.root()
    history = read_history(root, "compare")
    texts = [arguments.first, *arguments.others]
    if found := recipe_comparison.find(history, texts):
        if arguments.out:
            raise UserError("--out is for the picture of runs, and recipes have none; leave it out")
        comparison = recipe_comparison.compare(found)
        _print_recipes(comparison, as_json=arguments.json)
        return 0 if comparison.is_whole else 1
    results = _find(history, texts)
    reference = listing.reference(history)
    runs = [listing.of_result(history, result, reference) for result in results]
    names = _names(runs)
    pairs = {
        name: pair(history, results[0], result)
        for name, result in zip(names[1:], results[1:], strict=True)
    }
    curves = {
        name: rows
        for name, result in zip(names, results, strict=True)
        if (rows := history.rows(result.training, "curve.csv"))
    }
    for name in names:
        if name not in curves:
            note("compare", f"{name} is not in the picture: its curve.csv is not here")
    picture = None
    if curves:
        write = partial(figures.save, figures.several_curves(curves))
        picture = write_chosen(arguments.out, root, "comparison.png", write)
    keys = differing([run.params for run in runs])
    if arguments.json:
        answer = {
            "runs": [vars(run) for run in runs],
            "differing": keys,
            "against_first": [_as_json(name, paired) for name, paired in pairs.items()],
            "picture": str(picture) if picture else None,
        }
        print(json.dumps(answer, indent=2))
    else:
        _print(names, runs, keys, pairs)
        if picture:
            print(f"\ncurves: {picture}")
        promotes = any(run.state == listing.FINISHED for run in runs)
        promote = "`mnist-lstm promote RUN`, or " if promotes else ""
        print(f"Next: {promote}change params.yaml and run `dvc repro`.")
    return 1 if any(isinstance(found, str) for found in pairs.values()) else 0


def _print_recipes(comparison: "RecipeComparison", *, as_json: bool) -> None:
    from mnist_lstm.views.text_table import terminal_width

    if as_json:
        print(json.dumps(comparison.as_json(), indent=2))
        return
    print(*comparison.lines(terminal_width()), sep="\n")
    print("Choose by the validation images; the test images only say how good the choice is.")


def _find(history: "History", texts: Sequence[str]) -> list["Result | Partial"]:
    """Find the runs that the texts name. Raises UserError if two texts name the same run."""
    from mnist_lstm.runs.resolve import find_recorded, label

    found: list[Result | Partial] = []
    for text in texts:
        result = find_recorded(history, text)
        for other, before in zip(texts, found, strict=False):
            if result is before:
                raise UserError(f"{other!r} and {text!r} are the same run, {label(result)}")
        found.append(result)
    return found


def _names(runs: Sequence["Run"]) -> list[str]:
    """The runs' names; to a name that several have, the start of the training_id is added.

    Of tables without run.json, it is the start of the commit.
    """
    names = [run.name for run in runs]
    return [
        f"{run.name} {(run.training_id or next(iter(run.commits), 'here'))[:8]}"
        if names.count(run.name) > 1
        else run.name
        for run in runs
    ]


def _as_json(name: str, pair: "Paired | str") -> dict[str, Any]:
    if isinstance(pair, str):
        return {"name": name, "not_paired": pair}
    return {"name": name, **vars(pair), "more_than_chance": pair.more_than_chance}


def _print(
    names: Sequence[str],
    runs: Sequence["Run"],
    keys: Sequence[str],
    pairs: dict[str, "Paired | str"],
) -> None:
    from mnist_lstm.runs.comparison import cell
    from mnist_lstm.views.text_table import folded, table, terminal_width

    rows = [["", *names], *([key, *(cell(run.params, key) for run in runs)] for key in keys)]
    for split in ("validation", "test"):
        for figure, form in (("accuracy", ".2%"), ("loss", ".5f")):
            values = [getattr(run, f"{split}_{figure}") for run in runs]
            rows.append([f"{split} {figure}", *(_format(value, form) for value in values)])
    rows += [
        ["steps", *(_format(run.steps, ",") for run in runs)],
        ["seconds", *(_format(run.seconds, ",.1f") for run in runs)],
        ["device", *(run.device or "–" for run in runs)],
        ["state", *(run.state for run in runs)],
    ]
    print(*table(rows, terminal_width()), sep="\n")
    print(f"\nAnswers to the test images, compared with {names[0]}:")
    for name, pair in pairs.items():
        print(folded(f"{name}: {_sentence(names[0], name, pair)}", terminal_width()))


def _format(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _sentence(first: str, name: str, pair: "Paired | str") -> str:
    if isinstance(pair, str):
        return f"{pair}, so the answers cannot be compared"
    chance = "more than chance" if pair.more_than_chance else "no more than chance"
    return (
        f"of {pair.images:,} images, {pair.only_second:,} are correct only here, and "
        f"{pair.only_first:,} only in {first}; p = {pair.p:.2g}: {chance}"
    )
