"""Compare recipes by their seeds: is one better than the other, whatever the seed?"""

import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import stdev
from typing import Any

from mnist_lstm import UserError
from mnist_lstm.pipeline import params
from mnist_lstm.runs import recipes
from mnist_lstm.runs.comparison import LEVEL, are_the_same_images, cell, differing
from mnist_lstm.runs.history import History
from mnist_lstm.runs.recipes import FIGURES, Recipe
from mnist_lstm.runs.seeds import Summary, summary
from mnist_lstm.views.text_table import folded, table


@dataclass(frozen=True)
class Contest:
    """A metric of two recipes, of which each has two or more seeds.

    `difference` is the mean of the second less that of the first, and `low` to `high` its 95 %
    confidence interval. `p` is the probability of a difference at least as large, up or down, if
    both recipes were equally good. The three are None if nothing varies, so that nothing can be
    tested. `is_paired`: both have the same seeds, so that the differences of each seed were tested,
    by Student's t; otherwise, the means were, by Welch's t.
    """

    first: Summary
    second: Summary
    difference: float
    low: float | None
    high: float | None
    p: float | None
    is_paired: bool

    @property
    def more_than_chance(self) -> bool:
        """Whether the difference is significant."""
        return self.p is not None and self.p < LEVEL


def contest(first: Mapping[int, float], second: Mapping[int, float], metric: str) -> Contest:
    """Compare a metric of two recipes. Each has the value by seed, of two seeds at least.

    Welch, The generalization of Student's problem when several different population variances are
    involved, Biometrika 34 (1947).
    """
    from scipy import stats  # the import takes half a second

    is_paired = first.keys() == second.keys()
    ones, others = ([values[seed] for seed in sorted(values)] for values in (first, second))
    summaries = summary(ones, metric), summary(others, metric)
    difference = summaries[1].mean - summaries[0].mean
    changes = [two - one for one, two in zip(ones, others, strict=False)]
    spread = stdev(changes) if is_paired else stdev(ones) + stdev(others)
    if spread < 1e-12:  # nothing varies, so that t has no value
        return Contest(*summaries, difference, None, None, None, is_paired)
    with warnings.catch_warnings():
        # scipy warns of a recipe whose seeds all have one value, although both tests can have one
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        found = (
            stats.ttest_rel(others, ones)
            if is_paired
            else stats.ttest_ind(others, ones, equal_var=False)
        )
    low, high = found.confidence_interval(0.95)
    return Contest(*summaries, difference, float(low), float(high), float(found.pvalue), is_paired)


@dataclass(frozen=True)
class RecipeComparison:
    """Recipes, the keys in which they differ, and the contests of the first with each other one.

    The contests are by the other's name, and by split and figure: "validation accuracy". A text in
    place of a contest says why the figure cannot be compared.
    """

    recipes: Sequence[Recipe]
    keys: Sequence[str]
    contests: Mapping[str, Mapping[str, Contest | str]]

    @property
    def is_whole(self) -> bool:
        """Whether all figures of all recipes were compared."""
        every = (each for figures in self.contests.values() for each in figures.values())
        return not any(isinstance(each, str) for each in every)

    def as_json(self) -> dict[str, Any]:
        """All values, as JSON values."""
        return {
            "recipes": [
                {
                    "name": recipe.name,
                    "params": recipe.params,
                    "seeds": {seed.seed: seed.metrics for seed in recipe.seeds},
                    "conditions": _conditions(recipe),
                }
                for recipe in self.recipes
            ],
            "differing": self.keys,
            "against_first": [
                {"name": name} | {key: _as_json(each) for key, each in figures.items()}
                for name, figures in self.contests.items()
            ],
        }

    def lines(self, width: int | None) -> list[str]:
        """A table of the recipes, then each contest in words, for a terminal of this width."""
        rows = [["", *(recipe.name for recipe in self.recipes)]]
        rows += [[key, *(cell(recipe.params, key) for recipe in self.recipes)] for key in self.keys]
        rows.append(
            ["seeds", *(", ".join(str(s.seed) for s in recipe.seeds) for recipe in self.recipes)]
        )
        for split, figure in FIGURES:
            key = f"{split} {figure}"
            each = [
                summary(list(one.values(split, figure).values()), figure) for one in self.recipes
            ]
            form = ".2%" if figure == "accuracy" else ".5f"
            rows.append([f"{key}, mean", *(format(one.mean, form) for one in each)])
            rows.append([f"{key}, deviation", *(_deviation(one, figure) for one in each)])
        lines = [*table(rows, width), *(folded(note, width) for note in self._notes())]
        first, *others = self.recipes
        for other in others:
            how = (
                "paired by seed (t-test on the differences)"
                if _numbers(first) == _numbers(other)
                else "the seeds differ (Welch's test)"
            )
            lines += ["", f"{other.name}, compared with {first.name}; {how}:"]
            for split, figure in FIGURES:
                found = self.contests[other.name][key := f"{split} {figure}"]
                lines.append(folded(f"{key}: {_verdict(key, found)}", width))
        return lines

    def _notes(self) -> Iterator[str]:
        """A line about each condition that was not the same for all seeds."""
        by_recipe = {recipe.name: _conditions(recipe) for recipe in self.recipes}
        for key in next(iter(by_recipe.values())):
            values = [conditions[key] for conditions in by_recipe.values()]
            if len({value for each in values for value in each}) > 1:
                said = "; ".join(
                    f"{name}: {', '.join(each)}"
                    for name, each in zip(by_recipe, values, strict=True)
                )
                yield f"note: the {key} differs, which may make a difference, too ({said})"


def compare(recipes: Sequence[Recipe]) -> RecipeComparison:
    """Compare the first recipe with each of the others, by metrics of the same images."""
    first, *others = recipes
    contests = {
        other.name: {
            f"{split} {figure}": contest(
                first.values(split, figure), other.values(split, figure), figure
            )
            if _are_the_same_images(first, other, split)
            else f"other {split} images"
            for split, figure in FIGURES
        }
        for other in others
    }
    return RecipeComparison(recipes, differing([each.params for each in recipes]), contests)


def _as_json(contest: Contest | str) -> dict[str, Any]:
    if isinstance(contest, str):
        return {"not_compared": contest}
    return asdict(contest) | {"more_than_chance": contest.more_than_chance}


def _deviation(found: Summary, figure: str) -> str:
    deviation = found.deviation or 0
    return f"{100 * deviation:.2f} points" if figure == "accuracy" else f"{deviation:.5f}"


def _are_the_same_images(first: Recipe, other: Recipe, split: str) -> bool:
    """Whether both recipes, which are of one data set, are judged by the same images of a split."""
    digests = [each.images.get(split) for each in (first, other)]
    return are_the_same_images(split, (first.params, other.params), digests)


def _conditions(recipe: Recipe) -> dict[str, list[str]]:
    """The different values of each condition under which the seeds were trained."""
    keys = recipe.seeds[0].conditions
    return {key: sorted({each.conditions[key] for each in recipe.seeds}) for key in keys}


def _numbers(recipe: Recipe) -> list[int]:
    return [each.seed for each in recipe.seeds]


def find(history: History, texts: Sequence[str]) -> list[Recipe]:
    """The recipes that the texts name; none if they name runs.

    Raises UserError for runs among recipes, names of none, recipes that are the same, or too few
    seeds.
    """
    found: dict[str, Recipe] = {}
    for text in texts:
        if text in found:
            raise UserError(f"{text!r} is named twice")
        if recipe := _named(history, text):
            found[text] = recipe
    if found and len(found) < len(texts):
        other = next(text for text in texts if text not in found)
        raise UserError(f"{other!r} is no recipe; compare recipes with recipes only")
    named = dict[str, str]()
    for text, recipe in found.items():
        if (first := named.setdefault(recipe.key, text)) != text:
            raise UserError(f"{first!r} and {text!r} are the same recipe")
    for recipe in found.values():
        if len(recipe.seeds) < 2:
            raise UserError(_with_too_few_seeds(history.root, recipe))
    sets = {recipe.params.get("fetch.dataset") for recipe in found.values()}
    if len(sets) > 1:
        raise UserError(f"the recipes are for different data sets: {', '.join(map(str, sets))}")
    return list(found.values())


def _with_too_few_seeds(root: Path, recipe: Recipe) -> str:
    arguments = [recipe.name]
    if not _is_file(recipe.name):
        from mnist_lstm.runs import groups  # imports MLflow

        arguments = groups.arguments_of(root, recipe) or ["RECIPE"]
    command = shlex.join(["mnist-lstm", "seeds", "5", *arguments])
    number = len(recipe.seeds)
    return f"{recipe.name}: two seeds are needed, and this project has {number}: `{command}`"


def _is_file(text: str) -> bool:
    """Whether a text names a recipe by its file, and not as its parent run in MLflow does."""
    return Path(text).suffix in (".yaml", ".yml")


def _named(history: History, text: str) -> Recipe | None:
    """The recipe of a file, or of a parent run in MLflow; None if the text can only name a run."""
    if _is_file(text):
        settings = params.flatten(params.load(Path(text)).model_dump())
        return recipes.recipe_of(history, settings, text)
    if not text.startswith(recipes.SEEDS):
        return None
    from mnist_lstm.runs import groups  # imports MLflow

    recipe = groups.named(history, text)
    if recipe is None:
        every = [groups.name_of(history.root, each) for each in recipes.recipes(history)]
        names = "; ".join(every) or "none"
        raise UserError(f"no recipe here is called {text!r}; with seeds there are: {names}")
    return replace(recipe, name=text)


def _verdict(key: str, contest: Contest | str) -> str:
    """What a contest says, in words."""
    if isinstance(contest, str):
        return f"not compared: {contest}"
    is_loss = key.endswith("loss")
    better = contest.difference < 0 if is_loss else contest.difference > 0
    word = ("better" if better else "worse") if contest.difference else "as good"
    unit, times, form = ("", 1, ".5f") if is_loss else (" points", 100, ".2f")
    by = f"{times * contest.difference:+{form}}{unit}"
    if contest.p is None or contest.low is None or contest.high is None:
        return f"{word}: {by}; nothing varies, so chance cannot be tested: train more seeds"
    low, high = (f"{times * end:+{form}}" for end in (contest.low, contest.high))
    chance = "more than chance" if contest.more_than_chance else "no more than chance"
    return f"{word}: {by}, 95 % interval {low} to {high}{unit}; p = {contest.p:.2g}: {chance}"
