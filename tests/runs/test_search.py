"""Searches whose trainings are formulas. tests/pipeline has a search with real ones."""

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import _split_trials
from samples import REFERENCE_RECIPE

from mnist_lstm import UserError, git
from mnist_lstm.commands.search import OBJECTIVES, PRUNERS, how_to_bring, seeds_of, table_of
from mnist_lstm.pipeline import params, watched
from mnist_lstm.runs import experiment, search, space
from mnist_lstm.runs.search import Plan, Search, Trial, sampler_seed

STEPS, EVERY = 200, 20
TRAIN = experiment.train  # with dvc
SPACE = """\
train.learning_rate: {low: 0.0001, high: 0.1, log: true}
model.hidden_size: [16, 32, 64]
"""


class Untouchable:
    """Figures of the test images, which a search must not read."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError("a search reads the test images")


class Machine:
    """A project in which experiments are formulas. A trial's curve rises to its accuracy."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.experiments: dict[str, dict[str, Any]] = {}
        self.trained: list[str] = []
        self.interrupt: Callable[[int], bool] = lambda _: False
        self.code = "code"
        monkeypatch.setattr(experiment, "code_digest", lambda _: self.code)
        monkeypatch.setattr(experiment, "train", self.train)
        monkeypatch.setattr(experiment, "is_there", lambda _, name: name in self.experiments)
        monkeypatch.setattr(experiment, "result_of", lambda history, name, _: Made(self, name))
        monkeypatch.setattr(search, "History", lambda _: Files(self))
        (root / "space.yaml").write_text(SPACE)
        changes = {"train.steps": STEPS, "train.eval_every": EVERY}
        recipe = REFERENCE_RECIPE
        self.recipe = params.flatten(params.load(recipe, changes).model_dump())
        self.space = space.read(root / "space.yaml", recipe, changes)

    def search(self, pruner: str = "median", objective: str = "loss") -> Search:
        plan = Plan("space", self.recipe, self.space, objective, pruner, seed=0)
        return Search(self.root, self.recipe, plan, self.root / "searches")

    def train(
        self,
        root: Path,
        name: str,
        settings: Mapping[str, Any],
        here: Mapping[str, Any],
        code: str,
        *,
        report: Callable[[str], object],
        is_enough: Callable[[], bool],
        variables: Mapping[str, str],
    ) -> tuple[int, list[str]]:
        assert settings | {"seed": 0} == dict(settings)
        assert code == self.code
        assert name not in self.experiments  # each is trained once
        self.trained.append(name)
        report("Running stage 'train':")
        file = Path(variables[watched.FILE])
        if settings["train.learning_rate"] > 0.05:
            return 255, ["train: the loss is nan at step 20, so the training stops; lower it"]
        curve = [
            (step, accuracy_of(settings) * step / STEPS) for step in range(EVERY, STEPS + 1, EVERY)
        ]
        for number, row in enumerate(curve):
            if self.interrupt(number):
                raise KeyboardInterrupt
            with file.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            if is_enough():
                return 130, ["train: stopped by Ctrl-C"]
        self.experiments[name] = {"settings": dict(settings), "curve": curve}
        return 0, []


class Made:
    """The result of an experiment."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.made = machine.experiments[name]
        self.training = name

    @property
    def params(self) -> Mapping[str, Any]:
        return params.with_values({}, self.made["settings"])


class Files:
    """The files of the experiments, as History has them."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def rows(self, name: str, table: str) -> list[dict[str, Any]]:
        assert table == "curve.csv"
        return [
            {"step": step, "validation_accuracy": accuracy, "test_accuracy": Untouchable()}
            for step, accuracy in self.machine.experiments[name]["curve"]
        ]

    def metrics(self, result: Made) -> dict[str, Any]:
        accuracy = result.made["curve"][-1][1]
        return {
            "validation": {"accuracy": accuracy, "loss": 2 * (1 - accuracy)},
            "test": Untouchable(),
        }


def accuracy_of(settings: Mapping[str, Any]) -> float:
    """The best learning rate is 0.01; more units are better."""
    off = abs(math.log10(settings["train.learning_rate"]) + 2)
    return 0.95 - 0.2 * off + settings["model.hidden_size"] / 2000


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    return Machine(tmp_path, monkeypatch)


def test_it_finds_a_better_recipe_than_the_first_trials(machine: Machine) -> None:
    found = machine.search()
    trials = list(found.trials(24))
    assert [trial.number for trial in trials] == list(range(24))
    assert {trial.value is None for trial in trials} == {True, False}
    best = found.best
    assert best
    assert best.value == min(trial.value for trial in trials if trial.value is not None)
    assert best.number >= 4
    assert 0.003 < best.values["train.learning_rate"] < 0.03
    shares = search.importance(found.plan.space, found.ended)
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=lambda key: shares[key]) == "train.learning_rate"


def test_a_pruned_trial_keeps_its_curve_and_is_told_why(machine: Machine) -> None:
    trials = list(machine.search().trials(24))
    pruned = [trial for trial in trials if trial.value is None and trial.curve]
    assert pruned
    for trial in pruned:
        step, accuracy = trial.curve[-1]
        assert step < STEPS
        assert trial.why == f"pruned at step {step}, at {accuracy:.2%} of the validation images"
        assert (trial.value, trial.loss, trial.accuracy) == (None, None, None)
        assert trial.experiment not in machine.experiments


def test_a_diverged_training_is_a_bad_trial_and_no_end(machine: Machine) -> None:
    trials = list(machine.search().trials(24))
    diverged = [trial for trial in trials if trial.values["train.learning_rate"] > 0.05]
    assert diverged
    assert {trial.why for trial in diverged} == {"the loss is nan at step 20"}


def test_no_trial_is_worse_for_the_sampler_than_a_diverged_one(machine: Machine) -> None:
    """Optuna's own order of the trials: the first half is what it proposes more of."""
    found = machine.search()
    list(found.trials(24))
    found.study.sampler = TPESampler()
    better, worse = _split_trials(found.study, found.study.trials, 12)
    diverged = {trial.number for trial in found.ended if trial.diverged}
    pruned = {trial.number for trial in found.ended if trial.why and not trial.diverged}
    assert diverged
    assert pruned
    assert diverged <= {trial.number for trial in worse}
    assert {trial.number for trial in better} - pruned


@pytest.mark.parametrize("seed", range(5))
def test_killed_anywhere_it_ends_with_the_same_trials(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Also if records are lost: complete trials have experiments, pruned ones are trained again."""
    (tmp_path / "other").mkdir()
    other = Machine(tmp_path / "other", monkeypatch)
    expected = list(other.search().trials(16))
    again = Machine(tmp_path, monkeypatch)
    draw = random.Random(seed)
    again.interrupt = lambda _: draw.random() < 0.05
    kills = 0
    while True:
        try:
            trials = list(again.search().trials(16))
            break
        except KeyboardInterrupt:
            kills += 1
        records = sorted((tmp_path / "searches").glob("trial-*.json"))
        if records and draw.random() < 0.3:
            draw.choice(records).unlink()
    assert kills
    assert trials == expected
    assert len(set(again.experiments)) == len([t for t in trials if t.value is not None])


def test_what_has_ended_is_not_trained_again(machine: Machine) -> None:
    first = list(machine.search().trials(8))
    trained = len(machine.trained)
    assert list(machine.search().trials(8)) == first
    assert len(machine.trained) == trained
    assert list(machine.search().trials(10))[:8] == first
    assert len(machine.trained) == trained + 2


def test_other_code_begins_anew(machine: Machine) -> None:
    first = list(machine.search().trials(3))
    machine.code = "changed"
    assert not {t.experiment for t in first} & {t.experiment for t in machine.search().trials(3)}


def test_code_that_is_edited_meanwhile_ends_the_search(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = machine.search().trials(2)
    next(trials)
    monkeypatch.setattr(experiment, "train", TRAIN)
    machine.code = "edited"
    with pytest.raises(UserError, match="the code was edited meanwhile"):
        next(trials)


def test_another_space_or_seed_begins_anew(machine: Machine) -> None:
    first = [trial.asked for trial in machine.search().trials(3)]
    found = machine.search()
    found.plan = replace(found.plan, seed=1)
    assert [trial.asked for trial in found.trials(3)] != first
    narrow = SPACE.replace("high: 0.1", "high: 0.001")
    (machine.root / "space.yaml").write_text(narrow)
    machine.space = space.read(machine.root / "space.yaml", REFERENCE_RECIPE, {})
    rates = [trial.values["train.learning_rate"] for trial in machine.search().trials(3)]
    assert max(rates) <= 0.001


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_objective_is_of_the_validation_images(machine: Machine, objective: str) -> None:
    for trial in machine.search("none", objective).trials(5):
        if trial.accuracy is not None:
            error = 1 - trial.accuracy
            assert trial.value == pytest.approx(2 * error if objective == "loss" else error)
    for record in (machine.root / "searches").iterdir():
        assert "test" not in record.read_text()


def test_a_failed_training_ends_the_search_and_shows_what_dvc_said(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiment, "train", lambda *_, **__: (1, ["train: disk full"]))
    with pytest.raises(UserError, match="trial 0: `dvc exp run` ended with exit code 1; fix what"):
        list(machine.search().trials(1))
    assert "train: disk full" in capsys.readouterr().err


@pytest.mark.parametrize("pruner", PRUNERS)
def test_each_pruner_lets_the_last_step_be(machine: Machine, pruner: str) -> None:
    found = machine.search(pruner)
    trials: list[Trial] = list(found.trials(20))
    pruned = [trial for trial in trials if trial.value is None and trial.curve]
    assert bool(pruned) == (pruner != "none")
    assert found.best


def trial_with(number: int, values: dict[str, Any], **reached: Any) -> Trial:
    return Trial(number, values, values, f"search-trial-{number}-123456", **reached)


def test_the_table_at_its_end_fits_into_a_terminal() -> None:
    """Of 80 columns: with a column for each key, or one for all of them."""
    values: dict[str, Any] = {
        "train.learning_rate": 0.00213,
        "model.hidden_size": 256,
        "model.dropout": 0.1,
    }
    curve = [(100, 0.5), (1500, 0.9)]
    trials = [
        trial_with(0, values, curve=curve[:1], why="pruned at step 100, at 50.00% of the …"),
        trial_with(1, values, curve=curve[:1], why="the loss is nan at step 101"),
        trial_with(2, values, curve=curve, accuracy=0.9, loss=0.25, value=0.25),
        trial_with(3, values, curve=curve, accuracy=0.8, loss=0.125, value=0.125),
    ]
    lines = table_of(trials, list(values), 80)
    assert [line.split() for line in lines] == [
        ["trial", "validation", "loss", "steps", "learning_rate", "hidden_size", "dropout"],
        ["3", "90.00%", "0.1250", "1,500", "0.00213", "256", "0.1"],
        ["2", "90.00%", "0.2500", "1,500", "0.00213", "256", "0.1"],
        ["0", "50.00%", "pruned", "100", "0.00213", "256", "0.1"],
        ["1", "50.00%", "diverged", "100", "0.00213", "256", "0.1"],
    ]
    assert max(map(len, lines)) <= 80
    more = {**values, "train.weight_decay": 0.0001, "train.batch_size": 64}
    trials = [replace(each, values=more) for each in trials]
    assert max(map(len, table_of(trials, list(more), None))) > 80
    lines = "\n".join(table_of(trials, list(more), 80)).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["trial", "validation", "loss", "steps", "tried"]
    assert lines[1].endswith("learning_rate=0.00213, hidden_size=256,")


def test_the_best_is_to_be_trained_with_other_seeds(machine: Machine) -> None:
    found = machine.search()
    list(found.trials(1))
    values: dict[str, Any] = {"train.learning_rate": 0.00213, "train.clip_norm": None, "seed": 0}
    recipe = ["recipes/my recipe.yaml", "-S", "train.steps=500"]
    assert seeds_of(trial_with(0, values), found, recipe) == (
        "mnist-lstm seeds 5 'recipes/my recipe.yaml' -S train.steps=500 "
        "-S train.learning_rate=0.00213 -S train.clip_norm=null --from 1"
    )
    found.plan.recipe["seed"] = 7
    assert seeds_of(trial_with(0, values), found, []).endswith(" --from 8")


def test_the_best_is_brought_from_whichever_commit_it_was_made_from(tmp_path: Path) -> None:
    def commit(*, with_trial: bool) -> str:
        who = ("-c", "user.name=A. Tester", "-c", "user.email=tester@example.org")
        git.git(tmp_path, *who, "commit", "--quiet", "--allow-empty", "--message", "one")
        made = git.head(tmp_path) or ""
        if with_trial:
            git.git(tmp_path, "update-ref", f"refs/exps/{made[:2]}/{made[2:]}/trial", made)
        return made

    def apply(revision: str) -> str:
        return f"`dvc exp apply {revision}` copies its parameters and results here"

    git.git(tmp_path, "init", "--quiet")
    assert how_to_bring(tmp_path, "trial").startswith("it was trained elsewhere: ")
    first = commit(with_trial=True)
    assert how_to_bring(tmp_path, "trial") == apply("trial")
    commit(with_trial=False)
    assert how_to_bring(tmp_path, "trial") == apply("trial")
    second = commit(with_trial=True)
    assert how_to_bring(tmp_path, "trial") == apply("trial")
    commit(with_trial=False)  # dvc refuses the name, which is ambiguous now
    assert how_to_bring(tmp_path, "trial") in (apply(first[:7]), apply(second[:7]))
    assert how_to_bring(tmp_path, "tri").startswith("it was trained elsewhere: ")


def test_any_seed_gives_a_seed_that_numpy_takes() -> None:
    plan = Plan("plan", {}, {}, "loss", "median", 0)
    assert [sampler_seed(plan, number) for number in (0, 7)] == [0, 7]
    assert sampler_seed(replace(plan, seed=3), 7) == 3_000_016
    for seed in (-1, 4295, 2**70):
        assert 0 <= sampler_seed(replace(plan, seed=seed), 7) < 2**32
