"""Search for a better recipe: trials, each a DVC experiment, chosen by Optuna.

A search sees the validation images only. Its study is in memory: each start makes it again from the
trials that are there. A trial that has ended has a record, a small file. A trial that is complete
has an experiment too, from which a lost record comes back. A pruned trial whose record is lost is
trained again, from its checkpoint, and pruned at the same step: whether a trial is pruned depends
on the curves of the trials before it alone.

Each trial has a sampler with a seed of its own. So the values of a trial depend on the trials
before it alone, too, and a search that is killed and started again tries the same values.
"""

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial

from mnist_lstm import UserError
from mnist_lstm.pipeline import watched
from mnist_lstm.pipeline.result_files import read_json, write_json
from mnist_lstm.runs import experiment
from mnist_lstm.runs.history import History, Result
from mnist_lstm.runs.space import Space, described, rounded, suggest

# a training that fails so is a bad trial, and no reason to stop the search
DIVERGED = re.compile(r"^train: (the loss is \S+ at step [\d,]+), so the training stops")
PRUNED = "pruned at step "  # why a trial ended that Optuna ended
# what all records of a search have in common
COMMON = ("objective", "pruner", "sampler_seed", "code", "recipe", "space")
Curve = Sequence[tuple[int, float]]  # step, accuracy on the validation images

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Plan:
    """What is searched. `recipe` has the parameters by dotted key; `seed` is the sampler's."""

    name: str
    recipe: dict[str, Any]
    space: Space
    objective: str
    pruner: str
    seed: int


@dataclass(frozen=True)
class Trial:
    """A trial. Once it has ended, it has either a `value` or a reason `why` it has none.

    `asked` are Optuna's values by dotted key; the training's `values` are these, rounded. `value`
    is the objective, of which less is better: the validation loss, or the fraction of the
    validation images that are read wrong.
    """

    number: int
    asked: dict[str, Any]
    values: dict[str, Any]
    experiment: str
    why: str | None = None
    curve: Curve = ()
    accuracy: float | None = None
    loss: float | None = None
    value: float | None = None

    @property
    def diverged(self) -> bool:
        """Whether its loss became infinite or no number."""
        return self.why is not None and not self.why.startswith(PRUNED)

    @property
    def has_ended(self) -> bool:
        """Whether the trial has ended; the record of one that has begun has only what is tried."""
        return self.value is not None or self.why is not None


class Search:
    """The trials of a plan in the project in `root`; their records are in `folder`."""

    def __init__(self, root: Path, here: Mapping[str, Any], plan: Plan, folder: Path) -> None:
        """`here` has the parameters of params.yaml by dotted key."""
        self.root, self.here, self.plan, self.folder = root, here, plan, folder
        self.code = experiment.code_digest(root)
        self.ended: list[Trial] = []
        self.study = optuna.create_study(
            study_name=plan.name, direction="minimize", pruner=pruner_of(plan)
        )

    def trials(self, number: int) -> Iterator[Trial]:
        """So many trials, the first ones from what is there. Raises UserError if one fails."""
        while len(self.ended) < number:
            recorded = self._recorded()
            if recorded:
                self.study.enqueue_trial(recorded.asked)
            self.study.sampler = TPESampler(seed=sampler_seed(self.plan, len(self.ended)))
            asked = self.study.ask()
            trial = self.next(len(self.ended), suggest(self.plan.space, asked))
            judge = self.judge(asked, trial)
            trial = recorded or self.run(trial, judge)
            self.tell(asked, trial, judge)
            self.ended.append(trial)
            yield trial

    @property
    def best(self) -> Trial | None:
        """The best of the trials that have ended; None if none is complete."""
        complete = [each for each in self.ended if each.value is not None]
        return min(complete, key=lambda each: each.value or 0.0, default=None)

    def judge(self, asked: optuna.Trial, trial: Trial) -> "Judge":
        """Who reports the curve of a trial to Optuna."""
        return Judge(asked, (self.plan.recipe | trial.values)["train.steps"])

    def tell(self, asked: optuna.Trial, trial: Trial, judge: "Judge") -> None:
        """Tell Optuna how a trial ended."""
        judge.hears(trial.curve)
        self.close(asked, trial)

    def close(self, asked: optuna.Trial, trial: Trial) -> None:
        """Tell Optuna how a trial ended whose curve it has."""
        if trial.diverged:
            # it is worse than all pruned ones, however long and good its curve was before
            asked.set_constraint("diverged", 1.0)
        state = TrialState.PRUNED if trial.value is None else TrialState.COMPLETE
        self.study.tell(asked, trial.value, state)

    def next(self, number: int, asked: dict[str, Any]) -> Trial:
        """The trial with this number and these values of Optuna's."""
        values = rounded(self.plan.space, asked)
        settings = self.plan.recipe | values
        name = experiment.name_of(f"{self.plan.name}-trial-{number}", settings, self.code)
        return Trial(number, asked, values, name)

    def run(
        self,
        trial: Trial,
        judge: "Judge",
        *,
        report: Callable[[str], object] = lambda _: None,
        stops: Callable[[], bool] = lambda: False,
    ) -> Trial:
        """Train a trial, unless it has an experiment, and write its record.

        `report` is called with each line of dvc's output. When `stops` returns True, the training
        is ended, and Stopped is raised. Raises UserError if the training fails.
        """
        name, settings = trial.experiment, self.plan.recipe | trial.values
        for _ in range(experiment.TRIES):
            if experiment.is_there(self.root, name):
                break
            with tempfile.TemporaryDirectory() as scratch:
                file = Path(scratch) / "curve"
                failed, lines = experiment.train(
                    *(self.root, name, settings, self.here, self.code),
                    report=report,
                    is_enough=lambda: stops() or judge.hears(watched.read(file)) is not None,  # noqa: B023
                    variables={watched.FILE: str(file)},
                )
                curve = watched.read(file)
            diverged = [found[1] for line in lines if (found := DIVERGED.match(line))]
            if failed and stops():
                raise experiment.Stopped
            if failed and judge.hears(curve) is not None:
                return self.record(_pruned(trial, curve, judge))
            if failed and diverged:
                return self.record(replace(trial, why=diverged[0], curve=curve))
            if failed:
                for line in lines:
                    experiment.to_stderr(line)
                raise UserError(
                    f"trial {trial.number}: `dvc exp run` ended with exit code {failed}; fix what "
                    "it reports above, then repeat the command: it continues with this trial"
                )
        history = History(self.root)
        result = experiment.result_of(history, name, settings)
        return self.record(self.of_result(trial, history, result, judge))

    def of_result(
        self, trial: Trial, history: History, result: Result, judge: "Judge | None" = None
    ) -> Trial:
        """The trial with what its experiment has. With a `judge`, its curve may say that it counts
        as pruned.
        """
        rows = history.rows(result.training, "curve.csv")
        curve = [(row["step"], row["validation_accuracy"]) for row in rows]
        measured = history.metrics(result).get("validation")
        if not curve or not measured:
            raise UserError(
                f"trial {trial.number}: experiment {trial.experiment} has no evaluation here"
            )
        if judge and judge.hears(curve) is not None:
            return _pruned(trial, curve, judge)
        accuracy, loss = measured["accuracy"], measured["loss"]
        value = loss if self.plan.objective == "loss" else 1 - accuracy
        return replace(trial, curve=curve, accuracy=accuracy, loss=loss, value=value)

    def record(self, trial: Trial) -> Trial:
        """Write the record of a trial; returns the trial."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / f"trial-{trial.number}.json", self.common() | asdict(trial))
        return trial

    def common(self) -> dict[str, Any]:
        """What all records of this search have in common."""
        plan = self.plan
        recipe = {key: value for key, value in plan.recipe.items() if key not in plan.space}
        space = {key: distribution_to_json(each) for key, each in plan.space.items()}
        chosen = {"objective": plan.objective, "pruner": plan.pruner, "sampler_seed": plan.seed}
        return {**chosen, "code": self.code, "recipe": recipe, "space": space}

    def _recorded(self) -> Trial | None:
        """The next trial, from its record; None if there is none of this plan and this code."""
        path = self.folder / f"trial-{len(self.ended)}.json"
        if not path.is_file():
            return None
        found, common = read_json(path), self.common()
        if any(found.get(key) != common[key] for key in common):
            return None
        trial = trial_of(found)
        if trial is None or trial.number != len(self.ended) or not trial.has_ended:
            return None
        return trial if set(trial.asked) == set(self.plan.space) else None


def _pruned(trial: Trial, curve: Curve, judge: "Judge") -> Trial:
    until = [row for row in curve if row[0] <= (judge.pruned_at or 0)]
    step, accuracy = until[-1]
    why = f"{PRUNED}{step:,}, at {accuracy:.2%} of the validation images"
    return replace(trial, why=why, curve=until)


class Judge:
    """Reports the curve of a trial to Optuna, and says at which step Optuna prunes it."""

    def __init__(self, trial: optuna.Trial, steps: int) -> None:
        self.trial, self.steps = trial, steps
        self.heard = 0
        self.pruned_at: int | None = None

    def hears(self, curve: Curve) -> int | None:
        """The step at which the trial is pruned; None if it is not. The last step never is."""
        for step, accuracy in curve[self.heard :]:
            if self.pruned_at is not None:
                break
            self.heard += 1
            try:
                self.trial.report(1 - accuracy, step)
            except UpdateFinishedTrialError:  # it was taken for dead meanwhile: nobody prunes it
                continue
            if step < self.steps and self.trial.should_prune():
                self.pruned_at = step
        return self.pruned_at


def pruner_of(plan: Plan) -> BasePruner:
    """The pruner of a plan."""
    steps, every = plan.recipe["train.steps"], plan.recipe["train.eval_every"]
    if plan.pruner == "median":
        return MedianPruner(n_startup_trials=4, n_warmup_steps=steps // 5)
    if plan.pruner == "hyperband":
        return HyperbandPruner(min_resource=every, max_resource=steps)
    return NopPruner()


def importance(space: Space, trials: Sequence[Trial]) -> dict[str, float]:
    """The share of each key in the differences of the objective, the largest first.

    By Optuna's fANOVA (Hutter et al., 2014). Empty for fewer than two complete trials, and where
    all of them reached the same.
    """
    complete = [each for each in trials if each.value is not None]
    if len({each.value for each in complete}) < 2:
        return {}
    study = optuna.create_study()
    study.add_trials(
        [
            create_trial(params=each.asked, distributions=dict(space), value=each.value)
            for each in complete
        ]
    )
    found = optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
    )
    return {key: share for key, share in found.items() if share > 0}


@dataclass(frozen=True)
class Recorded:
    """A search as its records have it: the trials that have ended, in their order.

    `recipe` has the parameters by dotted key, without those of `space`. `chosen` has what else the
    plan said: the objective, the pruner and the sampler's seed.
    """

    name: str
    recipe: Mapping[str, Any]
    space: Space
    chosen: Mapping[str, Any]
    trials: Sequence[Trial]

    @property
    def tried(self) -> dict[str, str]:
        """What is tried for each key, in words."""
        return {key: described(each) for key, each in self.space.items()}


def sampler_seed(plan: Plan, number: int) -> int:
    """The seed with which the sampler chooses the values of a trial: NumPy takes 32 bits."""
    return (plan.seed * 1_000_003 + number) % 2**32


def recorded(folder: Path) -> Recorded | None:
    """The search that a folder has records of; None if there is none.

    Records of an earlier search that lie behind those of the present one are left out. Raises
    UserError if a record is damaged.
    """
    trials: list[Trial] = []
    common: dict[str, Any] = {}
    for path in trial_records(folder):
        found = read_json(path)
        mine = {key: found[key] for key in COMMON if key in found}
        trial = trial_of(found)
        if trial is None or mine.keys() != set(COMMON):
            raise UserError(f"{path}: not a record of a trial")
        common = common or mine
        if mine == common and trial.has_ended:
            trials.append(trial)
    if not trials:
        return None
    name = trials[0].experiment.rpartition(f"-trial-{trials[0].number}-")[0]
    space = {key: json_to_distribution(each) for key, each in common["space"].items()}
    chosen = {key: common[key] for key in ("objective", "pruner", "sampler_seed")}
    return Recorded(name, common["recipe"], space, chosen, trials)


def trial_records(folder: Path) -> list[Path]:
    """The records in a folder, by the number of the trial."""
    numbered = {
        int(number): path
        for path in folder.glob("trial-*.json")
        if (number := path.stem.removeprefix("trial-")).isdecimal()
    }
    return [numbered[number] for number in sorted(numbered)]


def trial_of(found: Mapping[str, Any]) -> Trial | None:
    """The trial of a record; None if it is none."""
    try:
        trial = Trial(**{key: value for key, value in found.items() if key not in COMMON})
        return replace(trial, curve=[(step, right) for step, right in trial.curve])
    except (TypeError, ValueError):
        return None
