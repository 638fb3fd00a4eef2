"""Which run a RUN names."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from samples import FINISHED
from tracked import about

from mnist_lstm import UserError
from mnist_lstm.runs.history import History, Partial, Result
from mnist_lstm.runs.resolve import NoSuchRun, find, find_recorded, find_results, label
from mnist_lstm.tracking.store import open_store
from mnist_lstm.tracking.store_errors import TrackingError
from mnist_lstm.tracking.tracked_run import TrackedRun


class Recorded(History):
    """A history of these results."""

    def __init__(self, root: Path, *results: Result, partial: tuple[Partial, ...] = ()) -> None:
        self.root, self.results, self.partial = root, list(results), list(partial)


def result(name: str, training_id: str, *experiments: str) -> Result:
    return Result(
        replace(FINISHED, training_id=training_id * 16, name=name),
        {},
        experiments=list(experiments),
    )


FIRST = result("digits-seed-0-1b1b1b", "1b")
SHARED = result("wide", "2c", "wide", "wide-again")
OTHER = result("wider", "2d", "wider")
BASELINE = Partial("e22c829", None, {}, {}, commits=["e22c829" + "0" * 33])


@pytest.fixture
def history(tmp_path: Path) -> History:
    return Recorded(tmp_path, FIRST, SHARED, OTHER, partial=(BASELINE,))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("digits-seed-0-1b1b1b", FIRST),  # a name
        ("1b" * 16, FIRST),  # an id
        ("wide-again", SHARED),  # one of the experiments that share a result
        ("d", FIRST),  # the start of a name
        ("1", FIRST),  # the start of an id
        ("wide-", SHARED),  # the start of an experiment
        ("wide", SHARED),  # a whole name, though another starts so
        ("2d", OTHER),
    ],
)
def test_a_run_is_found(history: History, text: str, meant: Result) -> None:
    assert find(history, text) is meant


def test_a_start_that_fits_several_runs_lists_them(history: History) -> None:
    expected = (
        "'wi' fits 2 runs: wide (id 2c2c2c2c; experiment wide-again), "
        "wider (id 2d2d2d2d); write more of the name"
    )
    with pytest.raises(UserError, match=re.escape(expected)) as met:
        find(history, "wi")
    assert not isinstance(met.value, NoSuchRun)


def test_two_runs_of_the_same_name_are_distinguished_by_their_ids(tmp_path: Path) -> None:
    twice = Recorded(tmp_path, result("same", "3e"), result("same", "3f"))
    with pytest.raises(UserError, match=r"same \(id 3e3e3e3e\), same \(id 3f3f3f3f\)"):
        find(twice, "same")
    assert find(twice, "3f").record.training_id == "3f" * 16


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("widest", "no run is called 'widest'; did you mean wide or wider?"),
        (
            "x",
            "no name starts with that; known runs: digits-seed-0-1b1b1b, wide, wide-again, wider",
        ),
        ("", "no run is called ''"),  # a shell variable that is not set means no run at all
    ],
)
def test_an_unknown_run_lists_the_known_ones(history: History, text: str, said: str) -> None:
    with pytest.raises(NoSuchRun, match=re.escape(said)):
        find(history, text)


def test_of_many_runs_the_latest_are_listed(tmp_path: Path) -> None:
    many = [result(f"number-{number}", f"{number:02}") for number in range(12)]
    with pytest.raises(NoSuchRun) as met:
        find(Recorded(tmp_path, *many), "x")
    assert "number-1," not in str(met.value)
    assert str(met.value).endswith("number-11 and 2 more")


def test_results_that_are_not_here_are_refused(history: History) -> None:
    for text in ("e22c829", BASELINE.commits[0], "e2"):
        with pytest.raises(NoSuchRun, match="e22c829 is recorded, but its results are not here"):
            find(history, text)
        assert find_recorded(history, text) is BASELINE


def test_a_project_without_runs_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NoSuchRun, match=r"^no run yet: `dvc repro` makes one$"):
        find(Recorded(tmp_path), "any")
    with pytest.raises(
        NoSuchRun, match=r"^the results of the recorded runs \(1\) are not here; `dvc"
    ):
        find(Recorded(tmp_path, partial=(BASELINE,)), "any")


def test_mlflow_is_asked_for_its_ids_and_for_names_given_there(
    history: History, fresh_store: Path
) -> None:
    shutil.copy(fresh_store, history.root)
    store = open_store(history.root)
    run = TrackedRun(store, OTHER.record)
    store.client.update_run(run.id, name="the good one")
    gone = TrackedRun(store, about("4a" * 16))
    assert find(history, run.id) is find(history, run.id[:12]) is OTHER
    assert find(history, "the good one") is find(history, "the go") is OTHER
    with pytest.raises(NoSuchRun, match=r"a run in MLflow \(drawn\), but its results are not here"):
        find(history, gone.id)
    with pytest.raises(NoSuchRun, match="no run is called 'the bad one'"):
        find(history, "the bad one")
    store.client.update_run(gone.id, name="the good one")
    for text in ("the good one", "the go"):  # of only one of them, the results are here
        with pytest.raises(UserError, match=f"'{text}' fits 2 runs in MLflow: the good one .id "):
            find(history, text)


def test_a_store_that_cannot_be_reached_is_reported(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert find(history, "wide") is SHARED  # without the store
    with pytest.raises(NoSuchRun, match=r"is called 'x', and .* MLflow store http://127.0.0.1:9: "):
        find(history, "x")


def test_the_store_is_asked_once_if_it_does_not_answer(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def refuse(root: Path) -> None:
        asked.append(root)
        raise TrackingError("no answer")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr("mnist_lstm.tracking.store.open_store", refuse)
    with pytest.raises(NoSuchRun, match="MLflow could not be searched: no answer"):
        find_results(history, "x")
    assert asked == [history.root]


def test_a_label_has_names_that_find_the_run(history: History) -> None:
    assert label(SHARED) == "wide (id 2c2c2c2c; experiment wide-again)"
    assert label(BASELINE) == "e22c829"
    for one in (FIRST, SHARED, OTHER):
        assert find(history, label(one).split(" ")[0]) is one
