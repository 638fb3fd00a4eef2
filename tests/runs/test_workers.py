"""Searches by several workers, whose trainings are formulas. tests/pipeline has real ones."""
# ruff: noqa: F811

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from optuna.storages import RDBStorage
from sqlalchemy import text
from test_search import Files, Machine, Made, accuracy_of, machine  # noqa: F401

from mnist_lstm import UserError
from mnist_lstm.runs import experiment, search, workers
from mnist_lstm.runs.search import Plan
from mnist_lstm.runs.workers import Workers

TRIALS = 12


class Both(Files):
    """The results that History has, too."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.results = [Result(machine, name) for name in machine.experiments]


class Result(Made):
    def __init__(self, machine: Machine, name: str) -> None:
        super().__init__(machine, name)
        self.experiments = [name]


def started(machine: Machine, folder: Path, number: int = 3, url: str | None = None) -> Workers:
    plan = Plan("space", machine.recipe, machine.space, "loss", "median", seed=0)
    return Workers(machine.root, machine.recipe, plan, folder, number, url)


@pytest.fixture(autouse=True)
def _fast(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PAUSE", 0.01)
    monkeypatch.setattr(workers, "History", lambda _: Both(machine))


def assert_whole(found: Workers, number: int = TRIALS) -> None:
    trials = found.ended
    assert len(trials) == number
    assert len({each.experiment for each in trials}) == number
    assert len({each.number for each in trials}) == number
    for each in trials:
        settings = found.plan.recipe | each.values
        if each.accuracy is not None:
            assert each.accuracy == pytest.approx(accuracy_of(settings))
    recorded = search.recorded(found.folder)
    assert recorded
    assert [each.experiment for each in recorded.trials] == [each.experiment for each in trials]
    assert [each.value for each in recorded.trials] == [each.value for each in trials]


def test_several_workers_share_the_trials(machine: Machine, tmp_path: Path) -> None:
    at_once, most = set[int](), []
    everybody = threading.Barrier(3, timeout=30)

    def interrupt(row: int) -> bool:
        if row == 0 and len(most) < 3:
            everybody.wait()
        at_once.add(threading.get_ident())
        most.append(len(at_once))
        return False

    machine.interrupt = interrupt
    found = started(machine, tmp_path / "records")
    seen = list(found.trials(TRIALS))
    assert len(at_once) == 3
    assert len(seen) == TRIALS
    assert_whole(found)
    trained = len(machine.trained)
    assert trained == TRIALS
    again = started(machine, tmp_path / "records")
    assert list(again.trials(TRIALS)) == []
    assert again.ended == found.ended
    assert len(machine.trained) == trained


def test_stopped_and_started_again_it_ends_with_all_trials(
    machine: Machine,
    tmp_path: Path,
) -> None:
    calls = iter(range(10**6))
    machine.interrupt = lambda _: next(calls) % 40 == 39
    stops = 0
    while True:
        found = started(machine, tmp_path / "records")
        begun = {path.stem for path in (tmp_path / "records").glob("trial-*.json")}
        try:
            list(found.trials(TRIALS))
            break
        except KeyboardInterrupt:
            stops += 1
        assert begun <= {path.stem for path in (tmp_path / "records").glob("trial-*.json")}
    assert stops
    assert_whole(found)


def test_started_again_hyperband_compares_with_the_earlier_trials(
    machine: Machine, tmp_path: Path
) -> None:
    plan = Plan("space", machine.recipe, machine.space, "loss", "hyperband", seed=0)

    def rungs(found: Workers) -> dict[str, dict[str, float]]:
        return {
            each.user_attrs["experiment"]: {
                name: value
                for name, value in each.system_attrs.items()
                if name.startswith("completed_rung")
            }
            for each in found.study.trials
        }

    first = Workers(machine.root, machine.recipe, plan, tmp_path, 1, None)
    list(first.trials(TRIALS))
    assert any(rungs(first).values())
    again = Workers(machine.root, machine.recipe, plan, tmp_path, 1, None)
    assert rungs(again) == rungs(first)


def test_without_records_complete_trials_come_back_from_experiments(
    machine: Machine,
    tmp_path: Path,
) -> None:
    first = started(machine, tmp_path / "records")
    list(first.trials(TRIALS))
    trained = len(machine.trained)
    shutil.rmtree(tmp_path / "records")
    complete = [each for each in first.ended if each.value is not None]
    again = started(machine, tmp_path / "records")
    assert list(again.trials(len(complete))) == []
    assert [each.experiment for each in again.ended] == [each.experiment for each in complete]
    assert [each.value for each in again.ended] == [each.value for each in complete]
    assert len(machine.trained) == trained
    machine.code = "other"  # whose experiments are other ones
    assert started(machine, tmp_path / "others").study.trials == []


def test_commands_with_one_database_share_the_trials_and_fill_a_lost_one(
    machine: Machine,
    tmp_path: Path,
) -> None:
    """SQLite stands for the database; tests/pipeline has PostgreSQL."""
    url = f"sqlite:///{tmp_path / 'shared.db'}?timeout=60"
    found = [started(machine, tmp_path / name, 2, url) for name in ("one", "two")]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda each: list(each.trials(TRIALS)), found))
    for each in found:
        assert_whole(each)
    shared = [[(t.experiment, t.why, t.value) for t in each.ended] for each in found]
    assert shared[0] == shared[1]
    assert len(machine.trained) == TRIALS
    (tmp_path / "shared.db").unlink()
    shutil.rmtree(tmp_path / "two")
    again = started(machine, tmp_path / "one", 2, url)
    assert list(again.trials(TRIALS)) == []
    assert_whole(again)
    other = started(machine, tmp_path / "two", 2, url)
    list(other.trials(TRIALS + 2))
    assert_whole(other, TRIALS + 2)
    assert len(machine.trained) == TRIALS + 2


def test_the_trial_of_a_worker_that_died_goes_on_elsewhere(
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "GRACE", 1)
    monkeypatch.setattr(workers, "BEAT", 1)
    url = f"sqlite:///{tmp_path / 'shared.db'}?timeout=60"
    died = started(machine, tmp_path / "one", 1, url)
    begun = died._begin(3)  # and nothing more is heard of it
    assert begun
    _, trial = begun
    found = started(machine, tmp_path / "two", 1, url)
    list(found.trials(3))
    assert_whole(found, 3)
    assert trial.experiment in {each.experiment for each in found.ended}
    assert machine.trained.count(trial.experiment) == 1


def test_the_signs_of_life_go_on_after_the_database_was_away(
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}?timeout=60"
    found = started(machine, tmp_path / "records", 1, url)
    storage = found._storage
    assert storage
    assert found._begin(1)
    monkeypatch.setattr(workers, "BEAT", 0.01)
    with storage.engine.begin() as connection:
        connection.execute(text("ALTER TABLE trial_heartbeats RENAME TO away"))
    failed, calls = threading.Event(), iter(range(2))

    def record(trial_id: int) -> None:
        if next(calls, None) is None:
            failed.set()
        RDBStorage.record_heartbeat(storage, trial_id)

    monkeypatch.setattr(storage, "record_heartbeat", record)
    beats = threading.Thread(target=found._beat, args=(storage,), daemon=True)
    beats.start()
    assert failed.wait(30)
    found._stop.set()
    beats.join()


@pytest.mark.parametrize("row", [5, 9])
def test_a_trial_that_was_taken_for_dead_ends_here_too(
    machine: Machine, tmp_path: Path, row: int
) -> None:
    """As on a laptop that sleeps in the middle of a training, or at its end."""
    url = f"sqlite:///{tmp_path / 'shared.db'}?timeout=60"
    found = started(machine, tmp_path / "records", 1, url)

    def sleep(now: int) -> bool:
        if now == row and len(machine.trained) == 1:
            (trial_id,) = found._running
            assert found._storage
            found._storage.set_trial_state_values(trial_id, workers.TrialState.FAIL)
            failed = found._storage.get_trial(trial_id)
            with workers._quiet():
                workers.RetryFailedTrialCallback()(found.study, failed)
        return False

    machine.interrupt = sleep
    list(found.trials(3))
    assert_whole(found, 3)
    assert len(machine.trained) == 3


def test_two_that_begin_at_once_are_not_one_too_many(
    machine: Machine,
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}?timeout=60"
    one, two = (started(machine, tmp_path / name, 1, url) for name in ("one", "two"))
    assert one._begin(2)
    count = two._count
    calls = iter([1])
    two._count = lambda states, before=None: next(calls, None) or count(states, before)  # type: ignore[method-assign]
    assert one._begin(2)  # between the other's look and its question
    assert two._begin(2) is None
    assert one._count((*workers.ENDED, workers.TrialState.RUNNING)) == 2


def test_a_failed_training_ends_all_workers(
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search.experiment, "train", lambda *_, **__: (1, ["train: disk full"]))
    with pytest.raises(UserError, match="`dvc exp run` ended with exit code 1"):
        list(started(machine, tmp_path / "records").trials(3))


def test_the_trial_of_a_training_that_failed_goes_on_at_once(
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}?timeout=60"
    with monkeypatch.context() as failing:
        failing.setattr(search.experiment, "train", lambda *_, **__: (1, ["train: disk full"]))
        with pytest.raises(UserError, match="`dvc exp run` ended with exit code 1"):
            list(started(machine, tmp_path / "one", 1, url).trials(3))
    found = started(machine, tmp_path / "two", 1, url)
    assert found._count((workers.TrialState.RUNNING,)) == 0
    list(found.trials(3))
    assert_whole(found, 3)


def test_a_storage_that_does_not_open(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the storage sqlite:////dev/null/x: .*unable to open"):
        started(machine, tmp_path / "records", 1, "sqlite:////dev/null/x")


def test_dvc_is_started_by_one_worker_after_another(machine: Machine) -> None:
    lock = threading.Lock()
    turn = experiment.Turn(lock)
    with turn:
        assert lock.locked()
        turn.hears("Waiting for a lock")
        assert lock.locked()
        turn.hears("Stage 'fetch' didn't change, skipping")
        assert not lock.locked()
        lock.acquire()
        turn.hears("Running stage 'train':")
        assert lock.locked()
    assert lock.locked()  # another one's
