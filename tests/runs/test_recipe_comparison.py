from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from samples import drawn
from scipy.stats import t

from mnist_lstm.files import sha256
from mnist_lstm.runs.recipe_comparison import Contest, _verdict, compare, contest
from mnist_lstm.runs.recipes import Recipe, Seed, _of_the_latest_images


def test_recipes_with_the_same_seeds_are_compared_seed_by_seed() -> None:
    """The seeds vary far more than the recipes differ: only the pairs show the difference."""
    first = {0: 0.90, 1: 0.94, 2: 0.98}
    second = {2: 0.986, 0: 0.905, 1: 0.944}
    found = contest(first, second, "accuracy")
    assert found.is_paired
    # the differences are 0.005, 0.004 and 0.006: their deviation is 0.001, t is 0.005 / (s / √3)
    half = 4.302653 * 0.001 / 3**0.5
    assert found.difference == pytest.approx(0.005)
    assert (found.low, found.high) == pytest.approx((0.005 - half, 0.005 + half), abs=1e-8)
    ratio = 0.005 / (0.001 / 3**0.5)
    assert found.p == pytest.approx(1 - ratio / (ratio**2 + 2) ** 0.5)  # t of 2 degrees of freedom
    assert found.more_than_chance
    assert not contest(
        first, {seed + 1: value for seed, value in second.items()}, "accuracy"
    ).more_than_chance


def test_recipes_with_other_seeds_are_compared_by_welchs_test() -> None:
    """Welch's own formula for the degrees of freedom, and t's quantile from a table."""
    first, second = {0: 1.0, 1: 2.0, 2: 3.0}, {0: 4.0, 1: 8.0}
    found = contest(first, second, "accuracy")
    assert not found.is_paired
    parts = 1 / 3, 8 / 2  # variance by number, 1 of 3 and 8 of 2
    degrees = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 1)
    assert found.difference == 4
    half = float(t.ppf(0.975, degrees)) * sum(parts) ** 0.5
    assert (found.low, found.high) == pytest.approx((4 - half, 4 + half))
    assert found.p == pytest.approx(2 * float(t.sf(4 / sum(parts) ** 0.5, degrees)))
    assert not found.more_than_chance


@pytest.mark.parametrize("seeds", [(0, 1), (2, 3)])
def test_a_recipe_whose_seeds_are_all_equal_is_compared_without_a_warning(
    seeds: Sequence[int],
) -> None:
    """All warnings are errors in these tests, also scipy's."""
    found = contest({0: 0.9, 1: 0.9}, dict(zip(seeds, (0.91, 0.92), strict=True)), "accuracy")
    half = 12.706205 * 0.005  # t of one degree of freedom
    assert found.difference == pytest.approx(0.015)
    assert (found.low, found.high) == pytest.approx((0.015 - half, 0.015 + half), abs=1e-7)


@pytest.mark.parametrize("other", [{0: 0.5, 1: 0.5}, {2: 0.5, 3: 0.5}])
@pytest.mark.parametrize("more", [0, 0.25])
def test_where_nothing_varies_nothing_is_tested(other: dict[int, float], more: float) -> None:
    """Two seeds with the same difference, of one image say, would otherwise be certainty."""
    found = contest(
        {0: 0.5, 1: 0.5}, {seed: value + more for seed, value in other.items()}, "accuracy"
    )
    assert (found.difference, found.p, found.low, found.high) == (more, None, None, None)
    assert not found.more_than_chance
    said = _verdict("test accuracy", found)
    assert said.startswith("better: +25.00 points; " if more else "as good: +0.00 points; ")
    assert said.endswith("nothing varies, so chance cannot be tested: train more seeds")


def trained(
    seed: int, images: Mapping[str, str], device: str = "cpu AVX2", ended: str = "1"
) -> Seed:
    figures = {"accuracy": 0.9 + seed / 100, "loss": 0.3}
    metrics = {"validation": figures, "test": figures}
    conditions = {"device": device, "precision": "float32", "torch": "2"}
    return Seed(seed, f"r{seed}", f"id{seed}", "0", ended, metrics, [], images, conditions)


def recipe(name: str, *seeds: Seed, validation_size: int = 100) -> Recipe:
    settings = {"fetch.dataset": "digits", "preprocess.validation_size": validation_size}
    return Recipe(name, settings, seeds, [])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"validation": "v", "test": "t"}, {"validation": "w", "test": "t"}),
        ({}, {"validation": "w", "test": "t"}),  # an early record, which has other parameters
    ],
)
def test_figures_of_other_images_are_not_compared(
    first: Mapping[str, str], second: Mapping[str, str]
) -> None:
    one = recipe("one", *(trained(seed, first) for seed in (0, 1)))
    other = recipe("other", *(trained(seed, second) for seed in (0, 1)), validation_size=237)
    found = compare([one, other])
    (answer,) = found.as_json()["against_first"]
    assert answer.pop("test accuracy")["more_than_chance"] is False
    other = {"not_compared": "other validation images"}
    assert answer == {"name": "other"} | dict.fromkeys(
        ("validation accuracy", "validation loss"), other
    )
    assert not found.is_whole
    lines = found.lines(None)
    assert "validation accuracy: not compared: other validation images" in lines
    assert "validation loss: not compared: other validation images" in lines
    (line,) = (line for line in lines if line.startswith("test accuracy, deviation"))
    assert line.split("deviation")[1].split() == ["0.71", "points"] * 2


@pytest.mark.parametrize(
    ("other", "compared"),
    [
        ({"validation_size": 5}, {"test accuracy"}),
        ({"split_seed": 3}, {"test accuracy"}),
        ({"train_size": 7}, {"test accuracy", "validation accuracy", "validation loss"}),
    ],
)
def test_a_file_of_the_same_images_may_have_another_digest(
    tmp_path: Path, other: dict[str, int], compared: set[str]
) -> None:
    """Preprocess writes its parameters into each file, as here."""
    settings: dict[str, int | None] = {"validation_size": 4, "split_seed": None}
    recipes = []
    for name, about in (("one", settings), ("other", settings | other)):
        digests = {}
        for split in ("validation", "test"):
            path = tmp_path / name / f"{split}.safetensors"
            path.parent.mkdir(exist_ok=True)
            replace(drawn(4, seed=0), preprocess=about).save(path)
            digests[split] = sha256(path)
        params = {f"preprocess.{key}": value for key, value in about.items()}
        seeds = [trained(seed, digests) for seed in (0, 1)]
        recipes.append(Recipe(name, params, seeds, []))
    assert recipes[0].images["test"] != recipes[1].images["test"]
    contests = compare(recipes).contests["other"]
    assert {figure for figure, found in contests.items() if isinstance(found, Contest)} == compared


def test_images_that_changed_under_one_recipe_are_not_compared() -> None:
    """The files differ and preprocess does not: own images have changed."""
    old, new = {"validation": "v", "test": "t"}, {"validation": "w", "test": "u"}
    one, other = (
        recipe(name, *(trained(seed, images) for seed in (0, 1)))
        for name, images in (("one", old), ("other", new))
    )
    assert compare([one, other]).contests["other"] == {
        "validation accuracy": "other validation images",
        "test accuracy": "other test images",
        "validation loss": "other validation images",
    }


def test_a_difference_that_another_device_may_have_made_is_noted() -> None:
    images = {"validation": "v", "test": "t"}
    one = recipe("one", trained(0, images), trained(1, images))
    other = recipe("other", trained(0, images), trained(1, images, "cuda H200"))
    (note,) = (line for line in compare([one, other]).lines(None) if line.startswith("note: "))
    assert note.startswith("note: the device differs")
    assert note.endswith("(one: cpu AVX2; other: cpu AVX2, cuda H200)")
    assert not [line for line in compare([one, one]).lines(None) if line.startswith("note: ")]


def test_the_seeds_of_a_recipe_are_judged_by_the_same_images() -> None:
    """Own images may change: then the earlier seeds do not count, but early records do."""
    old, new = {"validation": "v", "test": "t"}, {"validation": "v", "test": "u"}
    seeds = [trained(0, new, ended="3"), trained(1, old, ended="2"), trained(2, {}, ended="1")]
    assert [each.seed for each in _of_the_latest_images(seeds)] == [0, 2]
    assert [each.seed for each in _of_the_latest_images(seeds[2:])] == [2]
