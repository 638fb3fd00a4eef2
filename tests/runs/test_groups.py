"""The parents of seeds and of trials, from results and records."""

import csv
import io
import json
import math
import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from samples import FINISHED, PROJECT, record_of_seed
from test_search import Machine, machine  # noqa: F401

from mnist_lstm import UserError, git
from mnist_lstm.cli import main
from mnist_lstm.commands import compare
from mnist_lstm.pipeline import stage
from mnist_lstm.pipeline.params import flatten, load, with_values
from mnist_lstm.pipeline.result_files import write_json, write_rows
from mnist_lstm.runs import groups, recipes
from mnist_lstm.runs.history import Files, History, Result
from mnist_lstm.runs.recipe_comparison import find
from mnist_lstm.tracking.parents import Parent

SETTINGS = {"seed": 0, "fetch.dataset": "drawn", "model.hidden_size": 16, "train.steps": 20}
STEPS = (10, 20)


class Made(History):
    """A history of trainings whose curve rises to an accuracy."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.results: list[Result] = []
        self.unreadable: list[str] = []
        self.accuracies: dict[str, float] = {}
        self._note = lambda _: None

    def add(
        self,
        accuracy: float,
        experiment: str | None = None,
        also: Sequence[str] = (),
        minute: int = 0,
        **settings: Any,
    ) -> Result:
        number = len(self.results)
        changed = {key.replace("__", "."): value for key, value in settings.items()}
        record = replace(
            FINISHED,
            training_id=f"{number:032x}",
            name=experiment or f"run {number}",
            dvc_experiment=experiment,
            started=f"2026-01-02T03:{minute:02}:00+00:00",
            ended=f"2026-01-02T03:{minute:02}:30+00:00",
            params=with_values({}, SETTINGS | changed),
        )
        result = Result(record, {"training": record.training_id}, experiments=list(also))
        self.accuracies[record.training_id] = accuracy
        self.results.append(result)
        return result

    def rows(self, files: Files, name: str) -> list[dict[str, Any]]:
        accuracy = self.accuracies[files["training"]]
        return [{"step": step, "validation_accuracy": accuracy * step / 20} for step in STEPS]

    def metrics(self, result: Any) -> dict[str, Any]:
        accuracy = self.accuracies[result.record.training_id]
        split = {"accuracy": accuracy, "loss": 1 - accuracy}
        return {"validation": split, "test": split}


@pytest.fixture
def history(tmp_path: Path) -> Made:
    git.git(tmp_path, "init", "--quiet")
    return Made(tmp_path)


def table(parent: Parent, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(parent.files[name].decode())))


def record(history: Made, seed: int, accuracy: float, **about: Any) -> None:
    path = history.root / "recipes" / "results" / "quick" / f"seed-{seed}.json"
    params = SETTINGS | {"seed": seed, "evaluate.batch_size": 10, "promote.margin": 1.0}
    found = record_of_seed(params, accuracy, training_id=f"far {seed}")
    write_json(path, found | about)
    rows = [{"step": step, "validation_accuracy": accuracy * step / 20} for step in STEPS]
    write_rows(path.with_suffix(".csv"), rows)


def test_seeds_have_a_parent_with_mean_and_interval_at_each_step(history: Made) -> None:
    accuracies = [0.8, 0.9, 0.94]
    for seed, accuracy in enumerate(accuracies):
        history.add(accuracy, f"quick-seed-{seed}-abcdef", minute=seed + 1, seed=seed)
    history.add(0.5, "quick-seed-0-fedcba", seed=0, model__hidden_size=32)
    history.add(0.5)  # no seed of a recipe by itself: but it has the parameters of one
    parent, other = groups.parents(history)
    assert parent.name == "seeds of quick"
    assert parent.children == {f"{number:032x}" for number in (0, 1, 2, 4)}
    assert other.children == {f"{3:032x}"}
    assert parent.key != other.key
    assert parent.params["model.hidden_size"] == "16"
    assert "seed" not in parent.params
    assert parent.points["seeds", 0] == 3
    half = 4.302653 * stdev(accuracies) / math.sqrt(3)  # Student's t of 2 degrees of freedom
    for step, part in ((10, 0.5), (20, 1.0)):
        found = {
            name: parent.points[f"validation_accuracy_{name}", step]
            for name in ("mean", "deviation", "low", "high")
        }
        middle = mean(accuracies) * part
        assert found["mean"] == pytest.approx(middle)
        assert found["deviation"] == pytest.approx(stdev(accuracies) * part)
        assert found["low"] == pytest.approx(middle - half * part)
        assert found["high"] == pytest.approx(min(1, middle + half * part))  # step 20: above it
    assert parent.points["when_trained_validation_loss_mean", 0] == pytest.approx(
        1 - mean(accuracies)
    )
    assert not any(key.startswith("test_loss") for key, _ in parent.points)
    assert [row["seed"] for row in table(parent, "seeds.csv")] == ["0", "1", "2"]
    assert (other.points["seeds", 0], ("validation_accuracy_low", 20) in other.points) == (1, False)


def test_the_latest_training_of_a_seed_counts(history: Made) -> None:
    history.add(0.9, "quick-seed-0-aaaaaa", minute=2)
    history.add(0.7, "quick-seed-0-bbbbbb", minute=1)
    (parent,) = groups.parents(history)
    assert parent.points["validation_accuracy_mean", 20] == 0.9
    assert len(parent.children) == 2


def test_a_seed_out_of_the_cache_is_known_by_its_experiment(history: Made) -> None:
    """Its run.json has the name of the training that made it."""
    history.add(0.9, None, also=["quick-seed-0-aaaaaa"])
    (parent,) = groups.parents(history)
    assert parent.name == "seeds of quick"


def test_recipes_are_compared_by_file_or_by_the_name_of_their_parent(
    history: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, (one, other) in enumerate([(0.90, 0.905), (0.94, 0.944), (0.98, 0.986)]):
        history.add(one, f"quick-seed-{seed}-aaaaaa", seed=seed)
        history.add(other, f"quick-seed-{seed}-bbbbbb", seed=seed, model__hidden_size=64)
    history.add(0.7, "slow-seed-0-bbbbbb", seed=7, model__hidden_size=8)
    history.add(0.8, "slow-seed-1-bbbbbb", seed=8, model__hidden_size=8)
    monkeypatch.setattr(stage, "root", lambda: history.root)
    monkeypatch.setattr(compare, "read_history", lambda *_: history)
    monkeypatch.setattr(
        groups, "name_of", lambda _, recipe: f"seeds of {recipe.name} {size(recipe)}"
    )
    assert main(["compare", "seeds of quick 16", "seeds of quick 64", "seeds of slow 8"]) == 0
    printed = capsys.readouterr().out
    assert "paired by seed (t-test on the differences)" in printed
    assert (
        "validation accuracy: better: +0.50 points, 95 % interval +0.25 to +0.75 points; "
        "p = 0.013: more than chance"
    ) in printed
    assert "the seeds differ (Welch's test)" in printed
    assert "validation accuracy: worse: -19.00 points" in printed
    assert "validation loss: better: -0.00500" in printed
    assert main(["compare", "seeds of quick 16", "seeds of quick 64", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["differing"] == ["model.hidden_size"]
    ((other,),) = [answer["against_first"]]
    assert other["validation accuracy"]["difference"] == pytest.approx(0.005)
    assert other["validation accuracy"]["is_paired"]
    assert other["validation accuracy"]["more_than_chance"]
    for seed in range(2):
        history.add(
            0.9 + seed / 10, f"split-seed-{seed}-cccccc", seed=seed, preprocess__split_seed=1
        )
    assert main(["compare", "seeds of quick 16", "seeds of split 16"]) == 1
    assert "validation loss: not compared: other validation images" in capsys.readouterr().out


def test_a_recipe_of_two_files_has_the_names_of_both(history: Made) -> None:
    history.add(0.9, "params-seed-0-aaaaaa", also=["quick-seed-0-aaaaaa"])
    (parent,) = groups.parents(history)
    assert parent.name == "seeds of params"
    found = [groups.named(history, f"seeds of {name}") for name in ("params", "quick", "other")]
    assert [each and each.key for each in found] == [parent.key.partition(":")[2]] * 2 + [None]


def test_the_command_for_more_seeds_of_a_parent_trains_its_recipe(history: Made) -> None:
    names = ["seeds of quick set, hidden_size=32", "seeds of gone"]
    path = history.root / "recipes" / "quick set.yaml"
    path.parent.mkdir()
    shutil.copy(PROJECT / "recipes" / "quick.yaml", path)
    settings = flatten(load(path).model_dump()) | {"model.hidden_size": 32}
    history.add(0.9, "quick set-seed-0-aaaaaa", **settings)
    history.add(0.9, "gone-seed-0-aaaaaa", seed=1, model__hidden_size=8)
    history.add(0.9, "gone-seed-1-aaaaaa", seed=2, model__hidden_size=8)
    with pytest.raises(UserError) as met:
        find(history, names)
    file = shlex.quote(os.path.relpath(path))
    command = f"mnist-lstm seeds 5 {file} -S model.hidden_size=32"
    assert str(met.value) == (
        f"{names[0]}: two seeds are needed, and this project has 1: `{command}`"
    )
    path.unlink()
    with pytest.raises(UserError, match=r"this project has 1: `mnist-lstm seeds 5 RECIPE`$"):
        find(history, ["seeds of quick set", "seeds of gone"])


def size(recipe: recipes.Recipe) -> int:
    return recipe.params["model.hidden_size"]


def test_records_of_other_machines_count_where_a_result_is_here(history: Made) -> None:
    record(history, 0, 0.5)
    record(history, 1, 0.7)
    assert groups.parents(history) == []
    history.add(0.9, "quick-seed-0-aaaaaa")
    (parent,) = groups.parents(history)
    assert parent.points["validation_accuracy_mean", 20] == pytest.approx(0.8)
    assert parent.members == {f"{0:032x}", "far 1"}
    assert parent.children == {f"{0:032x}"}
    record(history, 1, 0.7, params={**SETTINGS, "seed": 1, "model.hidden_size": 99})
    record(history, 2, 0.7, params="damaged")
    (parent,) = groups.parents(history)
    assert parent.points["seeds", 0] == 1
    assert [line.partition(":")[0] for line in history.unreadable] == [
        "recipes/results/quick/seed-2.json"
    ]


@pytest.mark.parametrize("given", ["auto", "bfloat16"])
def test_a_record_is_of_its_precision_and_of_auto(history: Made, given: str) -> None:
    settings = SETTINGS | {"seed": 1, "train.precision": given}
    record(history, 1, 0.7, params=settings, precision="bfloat16")
    for precision, seeds in (("bfloat16", [1]), ("float32", []), ("auto", [1])):
        found = recipes.recipe_of(history, SETTINGS | {"train.precision": precision}, "quick")
        assert [each.seed for each in found.seeds] == seeds


def test_a_search_has_a_parent_with_the_best_so_far(
    history: Made,
    machine: Machine,  # noqa: F811
) -> None:
    found = machine.search()
    trials = list(found.trials(12))
    assert groups.parents(history) == []  # no result is here
    for each in trials:
        if each.value is not None:
            history.add(each.accuracy or 0, each.experiment, **{"fetch.dataset": "digits"})
    (parent,) = groups.parents(history)
    assert parent.name == "trials of space"
    assert parent.experiments == {each.experiment for each in trials}
    best = math.inf
    for each in trials:
        best = min(best, each.loss or math.inf)
        if best < math.inf:
            assert parent.points["best_validation_loss", each.number] == best
        assert parent.points.get(("trial_validation_loss", each.number)) == each.loss
    assert parent.points["trials", 0] == 12
    shares = {key: value for (key, _), value in parent.points.items() if "importance" in key}
    assert shares.keys() == {"importance/train.learning_rate", "importance/model.hidden_size"}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert parent.params["space.train.learning_rate"] == "0.0001 to 0.1, log"
    assert parent.params["space.model.hidden_size"] == "16, 32, 64"
    assert (parent.params["objective"], parent.params["pruner"]) == ("loss", "median")
    assert "train.learning_rate" not in parent.params
    rows = table(parent, "trials.csv")
    assert [row["ended_early"] or None for row in rows] == [each.why for each in trials]
    assert parent.pictures["search.png"]().startswith(b"\x89PNG")
    assert not any("test" in key for key, _ in parent.points)


def test_a_run_has_one_parent(history: Made, machine: Machine) -> None:  # noqa: F811
    """The best trial is often a seed of its recipe, too."""
    (first, *_) = machine.search().trials(2)
    history.add(0.9, first.experiment, also=["best-seed-0-aaaaaa"])
    history.add(0.9, "best-seed-1-aaaaaa", seed=1)
    seeds, trials = groups.parents(history)
    assert trials.children == {f"{0:032x}"}
    assert seeds.children == {f"{1:032x}"}
    assert seeds.members == {f"{0:032x}", f"{1:032x}"}


def test_a_trial_is_no_seed_of_its_recipe(history: Made) -> None:
    """The best of many trials was lucky with its seed."""
    history.add(0.99, "search-trial-7-aaaaaa")
    history.add(0.9, "best-seed-1-aaaaaa", seed=1)
    (parent,) = groups.parents(history)
    assert parent.members == {f"{1:032x}"}
    history.add(0.99, "search-trial-7-aaaaaa", also=["best-seed-0-aaaaaa"])
    (parent,) = groups.parents(history)
    assert parent.members == {f"{1:032x}", f"{2:032x}"}


def test_records_of_an_earlier_search_do_not_count(history: Made, machine: Machine) -> None:  # noqa: F811
    list(machine.search().trials(5))
    machine.code = "changed"
    (first, *_) = trials = list(machine.search().trials(2))
    history.add(0.9, first.experiment)
    (parent,) = groups.parents(history)
    assert parent.points["trials", 0] == 2
    assert parent.experiments == {each.experiment for each in trials}
    (machine.root / "searches" / "trial-1.json").write_text(json.dumps(asdict(first)))
    assert groups.parents(history) == []
    assert [line.partition(" (")[0] for line in history.unreadable] == ["searches: no search"]
