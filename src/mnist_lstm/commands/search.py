"""Search for better parameters with Optuna: many trials, each a DVC experiment."""

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_lstm import UserError
from mnist_lstm.commands import (
    add_recipe,
    changes,
    in_project,
    note,
    recipe_file,
    settings_of,
    show_groups,
    whole_number,
    writable_folder,
)
from mnist_lstm.runs.objectives import OBJECTIVES

if TYPE_CHECKING:
    from mnist_lstm.runs.search import Search, Trial

HELP = """\
Try N combinations of parameters, and print the best one. Optuna chooses each combination by what
the trials before it reached on the validation images; the test images have no say. Each trial is a
DVC experiment, so the workspace stays as it is.

A file lists what is tried, by default recipes/search.yaml: for each key a list of values, or a
range with low and high. All other parameters are those of RECIPE. A trial that falls behind is
pruned: its training ends early, and its curve stays. --pruner says which rule decides: median
(worse than half of the earlier trials at the same step), hyperband, or none.

Each trial that ends writes a small file into --record. If the command is stopped, or killed, the
same command continues with the same trials. With a larger N, it adds trials. After a change of
code or of the recipe, the search begins anew. In MLflow, the trials are below a parent run, which
has the best so far over the trials.

With --workers K, K trials are trained at once. On several machines, give the same command with the
same --storage in a clone each: the machines then share the trials, and end together with N of them.
What the machines try then depends on which one is quicker. If the database is deleted, no trial is
lost.

Exit code: 0 when all trials have ended, 2 when one failed or the command is wrong, 130 when it was
stopped."""

SPACE = "recipes/search.yaml"
NAME = "mnist-lstm search"
PRUNERS = ("median", "hyperband", "none")


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("trials", metavar="N", type=whole_number, help="how many trials")
    add_recipe(parser, "a complete params.yaml, for what the space does not name")
    parser.add_argument(
        "--space",
        metavar="FILE",
        type=Path,
        help=f"what is tried (default: the project's {SPACE})",
    )
    parser.add_argument(
        "--objective",
        choices=OBJECTIVES,
        default="loss",
        help="what is to be best on the validation images (default: loss)",
    )
    parser.add_argument(
        "--pruner",
        choices=PRUNERS,
        default="median",
        help="which rule ends trials early (default: median)",
    )
    parser.add_argument(
        "--seed",
        metavar="K",
        type=int,
        default=0,
        help="seed of the choices; the seed of the trainings is the recipe's (default: 0)",
    )
    parser.add_argument(
        "--record",
        metavar="DIR",
        type=writable_folder,
        help="folder of the records (default: searches/ and the name of the space)",
    )
    parser.add_argument(
        "--workers",
        metavar="K",
        type=whole_number,
        default=1,
        help="how many trials are trained at once (default: 1)",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="a database for several machines, such as postgresql://host/optuna",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object with the trials")


def run(arguments: argparse.Namespace) -> int:
    """Run the trials that are missing, and print all of them."""
    from mnist_lstm.pipeline import stage

    root, changed = stage.root(), changes(arguments.set_param)
    path = recipe_file(arguments, root)
    recipe, here = settings_of(path, changed), settings_of(root / "params.yaml")
    from mnist_lstm.runs import search, space  # Optuna takes a second

    listed = arguments.space or in_project(root, SPACE)
    name = listed.stem
    plan = search.Plan(
        name=name,
        recipe=recipe,
        space=space.read(listed, path, changed),
        objective=arguments.objective,
        pruner=arguments.pruner,
        seed=arguments.seed,
    )
    records = arguments.record or root / "searches" / name
    found: search.Search
    if arguments.workers > 1 or arguments.storage:
        from mnist_lstm.runs.workers import Workers

        found = Workers(root, here, plan, records, arguments.workers, arguments.storage)
    else:
        found = search.Search(root, here, plan, records)
    try:
        _run(found, arguments.trials)
        show_groups(root, "search")
    except KeyboardInterrupt:
        note("search", "stopped; the same command continues from there")
        return 130
    importance = search.importance(found.plan.space, found.ended)
    if arguments.json:
        best = asdict(found.best) if found.best else None
        trials = [asdict(each) for each in found.ended]
        print(json.dumps({"best": best, "importance": importance, "trials": trials}, indent=2))
        return 0
    _print(found, importance, [str(path), *_set(arguments.set_param)])
    _draw(found)
    return 0


def _run(found: "Search", number: int) -> None:
    """Run the trials; a line for each one that ends and, on a terminal, a bar."""
    from tqdm import tqdm

    with tqdm(total=number, unit=" trials", disable=None) as bar:
        for trial in found.trials(number):
            tqdm.write(f"{NAME}: {_line(trial)}", file=sys.stderr)
            if trial.why:
                _tell_mlflow(found.root, trial)
            if best := found.best:
                bar.set_postfix_str(
                    f"best: trial {best.number}, {best.accuracy:.2%}", refresh=False
                )
            bar.update()


def _tell_mlflow(root: Path, trial: "Trial") -> None:
    """Say in MLflow why a run ended early. The search goes on if the store is away."""
    from mnist_lstm.runs.elsewhere import is_elsewhere
    from mnist_lstm.tracking import projection, store, store_errors  # seconds, with MLflow

    try:
        opened = store.open_store(root)
        projection.mark_pruned(
            *(opened, trial.experiment, trial.why or ""),
            is_own=lambda tags: not is_elsewhere(tags, root, opened.uri),
        )
    except store_errors.TrackingError as error:
        note("search", str(error))


def _line(trial: "Trial") -> str:
    """What a trial that has just ended tried and reached."""
    what = trial.why or f"{trial.accuracy:.2%} of the validation images, loss {trial.loss:.4f}"
    return f"trial {trial.number}: {', '.join(_values(trial))}: {what}"


def _values(trial: "Trial") -> list[str]:
    from mnist_lstm.pipeline.params import assignments

    return assignments(trial.values)


def _print(found: "Search", importance: Mapping[str, float], recipe: Sequence[str]) -> None:
    """The trials, what decided, and what to do with the best; `recipe` are the arguments of it."""
    from mnist_lstm.pipeline.params import short_name
    from mnist_lstm.views.text_table import folded, terminal_width

    print(*table_of(found.ended, list(found.plan.space), terminal_width()), sep="\n")
    if importance:
        shares = ", ".join(f"{short_name(key)} {share:.0%}" for key, share in importance.items())
        print()
        print(folded(f"what decided (share of the differences): {shares}", terminal_width()))
    if best := found.best:
        print()
        print(
            folded(f"the best: trial {best.number}, {', '.join(_values(best))}", terminal_width())
        )
        print(folded(how_to_bring(found.root, best.experiment), terminal_width()))
        again = f"`{seeds_of(best, found, recipe)}` trains its recipe with seeds that this search "
        print(folded(f"{again}has not seen", terminal_width()))
    else:
        print("\nno trial was trained to its end", file=sys.stderr)


def how_to_bring(root: Path, name: str) -> str:
    """Which command brings the results of a trial's experiment into the workspace, in words."""
    from mnist_lstm.runs import experiment

    if revision := experiment.revision_of(root, name):
        return f"`dvc exp apply {revision}` copies its parameters and results here"
    return (
        f"it was trained elsewhere: there, `dvc exp push REMOTE {name}`; here, "
        f"`dvc exp pull REMOTE {name}`"
    )


def seeds_of(best: "Trial", found: "Search", recipe: Sequence[str]) -> str:
    """The command that trains the recipe of a trial with seeds that no trial had."""
    from mnist_lstm.pipeline.params import format_value

    values = _set(f"{key}={format_value(value)}" for key, value in best.values.items())
    seen = max((found.plan.recipe | each.values)["seed"] for each in found.ended)
    return shlex.join(["mnist-lstm", "seeds", "5", *recipe, *values, "--from", str(seen + 1)])


def _set(assigned: Iterable[str]) -> list[str]:
    """The arguments that set parameters, without the seed, which `seeds` refuses."""
    kept = (each for each in assigned if not each.startswith("seed="))
    return [part for each in kept for part in ("-S", each)]


def table_of(trials: "Sequence[Trial]", keys: Sequence[str], width: int | None) -> list[str]:
    """The trials as a table, the best first. What was tried has a column for each key, or one
    column for all keys where these do not fit into the width of the terminal.
    """
    from mnist_lstm.pipeline.params import format_value, short_name
    from mnist_lstm.views.text_table import table

    every = ranked(trials)
    reached = [["trial", "validation", "loss", "steps"], *map(_reached, every)]
    values = [[format_value(each.values[key]) for key in keys] for each in every]
    rows = zip(reached, [[short_name(key) for key in keys], *values], strict=True)
    lines = table([[*a, *b] for a, b in rows], width, right="rrrr" + "r" * len(keys))
    if width is None or max(map(len, lines)) <= width:
        return lines
    tried = [["tried"], *([", ".join(_values(each))] for each in every)]
    return table([[*a, *b] for a, b in zip(reached, tried, strict=True)], width, right="rrrr")


def _reached(trial: "Trial") -> list[str]:
    step, accuracy = trial.curve[-1] if trial.curve else (0, None)
    if trial.loss is not None:
        loss = f"{trial.loss:.4f}"
    else:  # the other reason is a loss that is not finite
        loss = "diverged" if trial.diverged else "pruned"
    right = f"{accuracy:.2%}" if accuracy is not None else ""
    return [str(trial.number), right, loss, f"{step:,}"]


def ranked(trials: "Sequence[Trial]") -> "list[Trial]":
    """Complete trials before pruned ones; of each kind, the best first."""

    def order(trial: "Trial") -> tuple[bool, float, int]:
        last = trial.curve[-1][1] if trial.curve else 0.0
        return trial.value is None, -last if trial.value is None else trial.value, trial.number

    return sorted(trials, key=order)


def _draw(found: "Search") -> None:
    from mnist_lstm.views import figures, search_figure

    path = found.folder / "search.png"
    trials: list[tuple[int, Mapping[str, Any], float]] = [
        (each.number, each.values, each.value) for each in found.ended if each.value is not None
    ]
    if not trials:
        return
    try:
        figures.save(search_figure.search(trials, OBJECTIVES[found.plan.objective]), path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    here = Path.cwd()
    print(f"picture: {path.relative_to(here) if path.is_relative_to(here) else path}")
