"""Results that belong together, for MLflow: the seeds of a recipe, and the trials of a search.

The seeds of a recipe are a group if one of them is a DVC experiment of `mnist-lstm seeds`, as its
name says. The trials of a search are those that its records name.
"""

import csv
import io
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_lstm import UserError
from mnist_lstm.pipeline import params
from mnist_lstm.pipeline.params import assignments
from mnist_lstm.runs.history import History
from mnist_lstm.runs.objectives import OBJECTIVES
from mnist_lstm.runs.recipes import (
    FIGURES,
    SEED,
    SEEDS,
    TRIAL,
    Recipe,
    digest,
    experiments_of,
    project_records,
    recipes,
)
from mnist_lstm.runs.seeds import summary
from mnist_lstm.tracking.parents import Parent
from mnist_lstm.tracking.run_name import joined
from mnist_lstm.tracking.view import CURVE, ONCE, milliseconds

if TYPE_CHECKING:
    from mnist_lstm.runs.search import Recorded


def parents(history: History) -> list[Parent]:
    """What MLflow is to show of the groups of which results are here, those of recipes first."""
    searches: dict[str, Parent] = {}
    claimed = set[str]()  # a run has one parent: the group that trained it comes first
    for folder in sorted({path.parent for path in project_records(history.root, "trial")}):
        parent = _of_search(history, folder, claimed)
        if parent and len(parent.members) > len(_members(searches.get(parent.key))):
            searches[parent.key] = parent
            claimed |= parent.children
    return [*(_of_recipe(history, each, claimed) for each in recipes(history)), *searches.values()]


def _of_recipe(history: History, recipe: Recipe, claimed: Collection[str]) -> Parent:
    """The parent of seeds: mean, deviation and interval of each metric, at each step."""
    points: dict[tuple[str, int], float] = {("seeds", 0): len(recipe.seeds)}
    curves = [{row["step"]: row for row in each.curve} for each in recipe.seeds]
    shared = sorted(set.intersection(*(set(each) for each in curves)))
    for step in shared:
        for name in CURVE:
            values = [each[step].get(name) for each in curves]
            numbers = [float(value) for value in values if isinstance(value, int | float)]
            if len(numbers) == len(values):
                points |= _statistics(name, step, numbers)
    last = shared[-1] if shared else 0
    for split, figure in FIGURES:
        key = f"{split}_{figure}"
        reached = list(recipe.values(split, figure).values())
        points |= _statistics(*((key, last) if key in CURVE else (f"{ONCE}{key}", 0)), reached)
    ids = {each.record.training_id for each in recipe.trainings}
    return Parent(
        key=f"seeds:{recipe.key}",
        name=name_of(history.root, recipe),
        note=_note_of(recipe),
        started=min(milliseconds(each.started) for each in recipe.seeds),
        ended=max(milliseconds(each.ended) for each in recipe.seeds),
        params={key: str(value) for key, value in recipe.params.items()},
        tags={"recipe": recipe.name, "dataset": str(recipe.params.get("fetch.dataset"))},
        points=points,
        files={"seeds.csv": _table(_rows_of(recipe))},
        members=frozenset(each.training_id for each in recipe.seeds),
        children=frozenset(ids - set(claimed)),
    )


def named(history: History, text: str) -> Recipe | None:
    """The recipe whose parent run in MLflow has this name; None if there is none.

    Seeds that were trained for two files with the same parameters have one parent, which has the
    name of the first; the name that it would have by the other file counts, too.
    """
    for recipe in recipes(history):
        every = (replace(recipe, name=name) for name in recipe.names)
        if text in (name_of(history.root, each) for each in every):
            return recipe
    return None


def name_of(root: Path, recipe: Recipe) -> str:
    """The name of a recipe's parent run, such as `seeds of quick, hidden_size=32`."""
    return joined([f"{SEEDS}{recipe.name}", *assignments(_changes(root, recipe))])


def arguments_of(root: Path, recipe: Recipe) -> list[str]:
    """The arguments by which `mnist-lstm seeds` trains a recipe; empty if its file is gone."""
    for name in recipe.names:
        named = replace(recipe, name=name)
        if path := _file(root, named):
            changed = _changes(root, named).items()
            values = [f"{key}={params.format_value(value)}" for key, value in changed]
            return [os.path.relpath(path), *(part for each in values for part in ("-S", each))]
    return []


def _file(root: Path, recipe: Recipe) -> Path | None:
    """The file of a recipe's name, if it can be read."""
    for path in (root / "recipes" / f"{recipe.name}.yaml", root / f"{recipe.name}.yaml"):
        with suppress(UserError):
            if path.is_file():
                params.load(path)
                return path
    return None


def _changes(root: Path, recipe: Recipe) -> dict[str, Any]:
    """The parameters in which a recipe differs from the file of its name, such as by `-S`."""
    if not (path := _file(root, recipe)):
        return {}
    file = params.flatten(params.load(path).model_dump())
    return {key: value for key, value in recipe.params.items() if file.get(key) != value}


def _of_search(history: History, folder: Path, claimed: Collection[str]) -> Parent | None:
    """The parent of trials: what each reached, the best so far, and what decided."""
    from mnist_lstm.runs import search  # Optuna takes a second

    try:
        found = search.recorded(folder)
    except (UserError, LookupError, TypeError, ValueError, AttributeError) as error:
        history.leave_out(f"{folder.relative_to(history.root)}: no search ({error})")
        return None
    names = frozenset(each.experiment for each in found.trials) if found else frozenset[str]()
    results = [each for each in history.results if names & experiments_of(each)]
    if not found or not results:
        return None
    is_loss = found.chosen["objective"] == "loss"
    figure = "validation_loss" if is_loss else "validation_accuracy"
    pruned = sum(each.value is None for each in found.trials)
    points: dict[tuple[str, int], float] = {
        ("trials", 0): len(found.trials),
        ("trials_pruned", 0): pruned,
    }
    best: float | None = None
    for each in found.trials:
        reached = {"validation_loss": each.loss, "validation_accuracy": each.accuracy}
        points |= {
            (f"trial_{name}", each.number): value
            for name, value in reached.items()
            if value is not None
        }
        if (value := reached[figure]) is not None:
            best = value if best is None else (min if is_loss else max)(best, value)
        if best is not None:
            points[f"best_{figure}", each.number] = best
    shares = search.importance(found.space, found.trials)
    points |= {(f"importance/{key}", 0): round(share, 4) for key, share in shares.items()}
    space = {f"space.{key}": each for key, each in found.tried.items()}
    given = {key: str(value) for key, value in {**found.recipe, **found.chosen}.items()}
    born = {each.record.training_id: each.record.dvc_experiment or "" for each in results}
    return Parent(
        key=f"search:{digest([found.name, found.recipe, space, found.chosen])}",
        name=f"trials of {found.name}",
        note=_note_of_search(found, shares),
        started=min(milliseconds(each.record.started) for each in results),
        ended=max(milliseconds(each.record.ended) for each in results),
        params=given | space,
        tags={"search": found.name, "dataset": str(found.recipe.get("fetch.dataset"))},
        points=points,
        files={"trials.csv": _table(_rows_of_search(found))},
        members=frozenset(each.experiment.rpartition("-trial-")[2] for each in found.trials),
        children=frozenset(
            training_id
            for training_id, name in born.items()
            if training_id not in claimed
            and (name in names or not (SEED.fullmatch(name) or TRIAL.fullmatch(name)))
        ),
        experiments=names,  # of pruned trials, which have no results
        pictures={"search.png": partial(_picture, found)} if best is not None else {},
    )


def _members(parent: Parent | None) -> frozenset[str]:
    return parent.members if parent else frozenset()


def _picture(found: "Recorded") -> bytes:
    from mnist_lstm.views import figures, search_figure

    complete: list[tuple[int, Mapping[str, Any], float]] = [
        (each.number, each.values, each.value) for each in found.trials if each.value is not None
    ]
    return figures.png(search_figure.search(complete, OBJECTIVES[found.chosen["objective"]]))


def _note_of_search(found: "Recorded", shares: Mapping[str, float]) -> str:
    tried = ", ".join(f"{key}: {each}" for key, each in found.tried.items())
    decided = ", ".join(f"{params.short_name(key)} {share:.0%}" for key, share in shares.items())
    return (
        f"A search by the validation {found.chosen['objective']}. Tried: {tried}. "
        "`trial_…` is what a trial reached, over the number of the trial; `best_…` is the best so "
        f"far.{f' What decided: {decided}.' if decided else ''}"
    )


def _rows_of_search(found: "Recorded") -> Iterator[dict[str, Any]]:
    for each in found.trials:
        reached = {"validation_accuracy": each.accuracy, "validation_loss": each.loss}
        named = {"trial": each.number, "experiment": each.experiment}
        yield {**named, **each.values, **reached, "ended_early": each.why}


def _note_of(recipe: Recipe) -> str:
    numbers = ", ".join(str(each.seed) for each in recipe.seeds)
    return (
        f"Trainings of one recipe that differ in their seed: {numbers}. `…_mean` is the mean of a "
        "metric over the seeds, `…_deviation` their standard deviation, and `…_low` and `…_high` "
        "are the ends of the 95 % confidence interval of the mean."
    )


def _statistics(key: str, step: int, values: Sequence[float]) -> dict[tuple[str, int], float]:
    found = summary(values, key)
    named = {
        "mean": found.mean,
        "deviation": found.deviation,
        "low": found.low,
        "high": found.high,
    }
    return {(f"{key}_{name}", step): each for name, each in named.items() if each is not None}


def _rows_of(recipe: Recipe) -> Iterator[dict[str, Any]]:
    for each in recipe.seeds:
        figures = {f"{split}_{figure}": each.metrics[split][figure] for split, figure in FIGURES}
        yield {"seed": each.seed, "name": each.name, "training_id": each.training_id} | figures


def _table(rows: Iterable[Mapping[str, Any]]) -> bytes:
    every = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, every[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(every)
    return text.getvalue().encode()
