"""A search by several workers, on one machine or on several, which share what they know.

Workers of one command are threads, and their study is in memory. Several machines share a database
of Optuna's. Neither is the truth: a worker puts into the study what its project has and the study
lacks, from records and from experiments. So a database that is lost is filled again.

A trial counts from the moment it begins, so that no worker begins one too many. If a worker dies,
its trial is begun again: here from its record, in a database after GRACE seconds by any worker.
"""

import contextlib
import queue
import re
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage, RetryFailedTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from mnist_lstm import UserError
from mnist_lstm.pipeline import params
from mnist_lstm.pipeline.result_files import read_json
from mnist_lstm.runs import experiment
from mnist_lstm.runs.history import History
from mnist_lstm.runs.recipes import digest
from mnist_lstm.runs.search import (
    Plan,
    Search,
    Trial,
    pruner_of,
    sampler_seed,
    trial_of,
    trial_records,
)
from mnist_lstm.runs.space import suggest
from mnist_lstm.tracking import credentials

BEAT = 10  # seconds between two signs of life of a trial
GRACE = 60  # seconds without one until the trial is another worker's
PAUSE = 1.0  # seconds between two looks at the study
TRIES = 5  # workers that start at once make the tables at once, and only one succeeds
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
DATABASE = (SQLAlchemyError, StorageInternalError)  # what a database raises that is away

QUIET = threading.Lock()  # Python's filters of warnings are those of all threads


class Workers(Search):
    """The trials of a plan, trained by several workers of this command and maybe by others."""

    def __init__(
        self,
        root: Path,
        here: Mapping[str, Any],
        plan: Plan,
        folder: Path,
        workers: int,
        storage: str | None,
    ) -> None:
        """`storage` is the address of a database; None if this command is alone.

        Raises UserError if the database cannot be used.
        """
        super().__init__(root, here, plan, folder)
        self.workers, self.address = workers, storage
        self._lock = threading.Lock()  # of the study
        self._starts = threading.Lock()
        self._stop = threading.Event()
        self._running = set[int]()  # Optuna's ids of the trials at work here
        self._news = queue.Queue[Trial | BaseException | None]()
        self._storage: RDBStorage | None = None
        with self._errors():
            self.study = self._open()
            self._restore()

    def trials(self, number: int) -> Iterator[Trial]:
        """Those that end here, as they end; `ended` has all of them afterwards."""
        threads = [
            threading.Thread(target=self._work, args=(number,), daemon=True)
            for _ in range(self.workers)
        ]
        if self._storage:
            threading.Thread(target=self._beat, args=(self._storage,), daemon=True).start()
        try:
            for thread in threads:
                thread.start()
            for _ in threads:
                while (found := self._news.get()) is not None:
                    if isinstance(found, BaseException):
                        raise found
                    self.ended.append(found)
                    yield found
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        with self._errors():
            self._collect(number)

    def _open(self) -> optuna.Study:
        if self.address:
            for left in reversed(range(TRIES)):
                try:
                    with _quiet():
                        self._storage = RDBStorage(
                            # the driver of the extra `team`, not the one of SQLAlchemy's choice
                            re.sub(r"^postgres(ql)?:", "postgresql+psycopg:", self.address),
                            heartbeat_interval=BEAT,
                            grace_period=GRACE,
                            heartbeat_stale_trial_callback=RetryFailedTrialCallback(),
                        )
                        return self._study()
                except SQLAlchemyError:
                    if not left:
                        raise
                    time.sleep(PAUSE)
        return self._study()

    def _study(self) -> optuna.Study:
        return optuna.create_study(
            storage=self._storage,
            study_name=f"{self.plan.name}-{digest(self.common())}",
            direction="minimize",
            pruner=pruner_of(self.plan),
            load_if_exists=True,
        )

    def _restore(self) -> None:
        """Put into the study what is here, and what it lacks."""
        known = {each.user_attrs.get("experiment") for each in self._every()}
        recorded = list(self._records())
        self._here = {each.experiment: each for each in recorded if each.has_ended}
        names = {each.experiment for each in recorded}
        for trial in [*recorded, *self._experiments(names)]:
            if trial.experiment in known:
                continue
            attributes = {"experiment": trial.experiment, "number": trial.number}
            if not trial.has_ended:
                self.study.enqueue_trial(trial.asked, user_attrs=attributes)
                continue
            self._add(trial, attributes | _said(trial))

    def _add(self, trial: Trial, attributes: Mapping[str, Any]) -> None:
        """Add a trial that has ended, as if it ended now."""
        begun = create_trial(
            state=TrialState.RUNNING,
            params=trial.asked,
            distributions=dict(self.plan.space),
            user_attrs=dict(attributes),
        )
        trial_id = self.study._storage.create_new_trial(self.study._study_id, begun)
        if self._storage:
            self._storage.record_heartbeat(trial_id)
        asked = optuna.Trial(self.study, trial_id)
        for step, accuracy in trial.curve:
            asked.report(1 - accuracy, step)
            asked.should_prune()  # Hyperband notes with it what it compares other trials with
        self.close(asked, trial)

    def _records(self) -> Iterator[Trial]:
        """The trials of this plan that have records here, those too that have only begun."""
        common = self.common()
        for path in trial_records(self.folder):
            found = read_json(path)
            trial = trial_of(found)
            if trial and all(found.get(key) == value for key, value in common.items()):
                yield trial

    def _experiments(self, recorded: set[str]) -> Iterator[Trial]:
        """The trials of this plan that have an experiment here and no record."""
        named = re.compile(rf"{re.escape(self.plan.name)}-trial-(\d+)-[0-9a-f]{{6}}")
        history = History(self.root)
        for result in history.results:
            for name in result.experiments:
                if name in recorded or not (found := named.fullmatch(name)):
                    continue
                settings = params.flatten(result.params)
                if not self.plan.space.keys() <= settings.keys():
                    continue
                asked = {key: settings[key] for key in self.plan.space}
                trial = self.next(int(found[1]), asked)
                if trial.experiment == name:  # its parameters and its code are those of the plan
                    yield self.record(self.of_result(trial, history, result))

    def _work(self, number: int) -> None:
        """Train trials until so many have ended, wherever."""
        try:
            with self._errors():
                while not self._stop.is_set():
                    begun = self._begin(number)
                    if begun:
                        self._end(*begun)
                    elif self._count(ENDED) >= number:
                        break
                    else:
                        self._stop.wait(PAUSE)
        except experiment.Stopped:
            pass
        except BaseException as error:
            self._stop.set()  # the others end their trainings, too
            self._news.put(error)
        self._news.put(None)

    def _begin(self, number: int) -> tuple[optuna.Trial, Trial] | None:
        """The next trial; None if enough have ended or are at work."""
        with self._lock, _quiet():
            fail_stale_trials(self.study)
            if self._count((*ENDED, TrialState.RUNNING)) >= number:
                return None
            asked = self.study.ask()
            if self._storage:  # of a trial without a sign of life, Optuna never says that it died
                self._storage.record_heartbeat(asked._trial_id)
            if self._count((*ENDED, TrialState.RUNNING), before=asked.number) >= number:
                self.study.tell(asked, state=TrialState.FAIL)  # another worker was quicker
                return None
            self._running.add(asked._trial_id)
            self.study.sampler = TPESampler(
                seed=sampler_seed(self.plan, asked.number), constant_liar=True
            )
            values = suggest(self.plan.space, asked)
            known = asked.user_attrs
            if "number" not in known:
                taken = [each.user_attrs.get("number", -1) for each in self._every()]
                asked.set_user_attr("number", max(asked.number, *(n + 1 for n in taken)))
            trial = self.next(asked.user_attrs["number"], values)
            if "experiment" in known:  # it was begun before, maybe with values of an experiment
                trial = replace(trial, experiment=known["experiment"])
            asked.set_user_attr("experiment", trial.experiment)
            return asked, self.record(trial)

    def _end(self, asked: optuna.Trial, trial: Trial) -> None:
        """Train a trial, and tell Optuna and the caller."""
        turn = experiment.Turn(self._starts)
        judge = self.judge(asked, trial)
        try:
            with turn:
                trial = self.run(trial, judge, report=turn.hears, stops=self._stop.is_set)
            # it took so long, as while a laptop slept, that it was failed
            with self._lock, contextlib.suppress(ValueError, UpdateFinishedTrialError):
                for key, value in _said(trial).items():
                    asked.set_user_attr(key, value)
                self.tell(asked, trial, judge)
        except BaseException:
            if self._storage:
                self._give_back(asked)
            raise
        finally:
            self._running.discard(asked._trial_id)
        self._news.put(trial)

    def _give_back(self, asked: optuna.Trial) -> None:
        """Leave a trial that has not ended to the next worker."""
        lost = (ValueError, *DATABASE)  # it has ended meanwhile, or GRACE must pass
        with self._lock, _quiet(), contextlib.suppress(*lost):
            frozen = self.study.tell(asked, state=TrialState.FAIL)
            RetryFailedTrialCallback()(self.study, frozen)

    def _beat(self, storage: RDBStorage) -> None:
        """Say that the trials at work here are alive, also after the database was away."""
        while not self._stop.wait(BEAT):
            for trial_id in list(self._running):
                with contextlib.suppress(*DATABASE):
                    storage.record_heartbeat(trial_id)

    def _collect(self, number: int) -> None:
        """All trials that have ended, those of other workers too, with a record of each."""
        here = self._here | {each.experiment: each for each in self.ended}
        ended: dict[str, Trial] = {}
        for each in self._every():
            if each.state in ENDED:
                trial = self._of_study(each)
                ended.setdefault(trial.experiment, here.get(trial.experiment, trial))
        self.ended = sorted(ended.values(), key=lambda each: each.number)[:number]
        for trial in self.ended:
            self.record(trial)

    def _of_study(self, frozen: FrozenTrial) -> Trial:
        attributes = frozen.user_attrs
        trial = self.next(attributes["number"], dict(frozen.params))
        curve = sorted(frozen.intermediate_values.items())
        return replace(
            trial,
            experiment=attributes["experiment"],
            curve=[(step, 1 - wrong) for step, wrong in curve],
            value=frozen.value if frozen.state == TrialState.COMPLETE else None,
            why=attributes.get("why"),
            accuracy=attributes.get("accuracy"),
            loss=attributes.get("loss"),
        )

    def _every(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _count(self, states: tuple[TrialState, ...], before: int | None = None) -> int:
        return sum(
            each.state in states and (before is None or each.number < before)
            for each in self._every()
        )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Report what goes wrong with the database as UserError."""
        try:
            yield
        except (*DATABASE, ImportError) as error:
            address = credentials.printable(self.address or "")
            raise UserError(f"the storage {address}: {_reason(error.__cause__ or error)}") from None


SAID = ("why", "accuracy", "loss")


def _said(trial: Trial) -> dict[str, Any]:
    return {key: value for key in SAID if (value := getattr(trial, key)) is not None}


def _reason(error: BaseException) -> str:
    """What is wrong with a database, in one line."""
    match error:
        case ModuleNotFoundError(name="psycopg"):
            return "psycopg is not installed; `make env EXTRAS=team` installs it"
        case ArgumentError():
            return "not the address of a database, such as postgresql://host/optuna"
    return str(error).strip().splitlines()[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna calls signs of life experimental, and expects them in its own loop."""
    with QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
