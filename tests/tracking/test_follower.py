"""Follow a run while it trains, with an MLflow store that works and one that fails."""

import threading
import time
from pathlib import Path

import pytest
from tracked import ROWS, TIMINGS, about

from mnist_lstm.tracking import follower
from mnist_lstm.tracking.follower import Follower
from mnist_lstm.tracking.store import Store
from mnist_lstm.tracking.store_errors import TrackingError
from mnist_lstm.tracking.stored_runs import runs
from mnist_lstm.tracking.tracked_run import TrackedRun

ENDED = TIMINGS[-1]["time"]


def test_at_the_end_the_store_has_everything(root: Path, store: Store) -> None:
    followed = Follower(root, about(), report=pytest.fail)
    for row, timing in zip(ROWS, TIMINGS, strict=True):
        followed.log_rows([row], [timing])
    followed.finish("KILLED", about(), ENDED)
    (run,) = runs(store)
    assert run.info.status == "KILLED"
    assert "trainer" not in run.data.tags
    history = store.client.get_metric_history(run.info.run_id, "test_accuracy")
    assert [metric.value for metric in history] == [row["test_accuracy"] for row in ROWS]


def test_the_run_is_visible_while_it_trains(root: Path, store: Store) -> None:
    reported: list[str] = []
    followed = Follower(root, about(), reported.append)
    followed.log_rows(ROWS[:1], TIMINGS[:1])
    while not (found := runs(store)) or "test_accuracy" not in found[0].data.metrics:
        assert not reported
        time.sleep(0.02)
    assert found[0].info.status == "RUNNING"
    assert found[0].data.tags["trainer"] == follower.trainer(root, "f")
    followed.finish("FINISHED", about(), ENDED)


def test_a_store_that_fails_is_reported_once_and_tried_again(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store fails twice, loses rows, and then works again."""
    monkeypatch.setattr(follower, "PAUSES", (0.01, 0.01))
    failures, log_rows = [1, 2], TrackedRun.log_rows
    back = threading.Event()

    def fail_twice(self: TrackedRun, *arguments: object) -> None:
        if failures:
            raise TrackingError(f"away: {failures.pop(0)}")
        log_rows(self, *arguments)  # type: ignore[arg-type]
        back.set()

    monkeypatch.setattr(TrackedRun, "log_rows", fail_twice)
    said: list[str] = []
    followed = Follower(root, about(), said.append)
    followed.log_rows(ROWS[:1], TIMINGS[:1])
    assert back.wait(60)
    followed.log_rows(ROWS[1:], TIMINGS[1:])
    followed.finish("FINISHED", about(), ENDED)
    assert said == ["away: 1; the training continues, and evaluate will try again"]
    (run,) = runs(store)
    assert run.info.status == "FINISHED"
    history = store.client.get_metric_history(run.info.run_id, "test_accuracy")
    assert [metric.step for metric in history] == [50, 100]


def test_a_store_that_fails_at_the_end_gets_later_what_is_missing(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TrackingError("away")

    monkeypatch.setattr(TrackedRun, "finish", fail)
    said: list[str] = []
    followed = Follower(root, about(), said.append)
    followed.log_rows(ROWS, TIMINGS)
    followed.finish("FINISHED", about(), ENDED)
    assert said == ["away; evaluate, or `mnist-lstm sync`, adds there later what is missing"]
    (run,) = runs(store)
    assert run.info.status == "RUNNING"


def test_a_store_that_hangs_at_the_end_is_left(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(follower.PATIENCE, "file", 0.01)
    answers, finish = threading.Event(), TrackedRun.finish

    def hang(self: TrackedRun, *arguments: object) -> None:
        answers.wait(60)
        finish(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(TrackedRun, "finish", hang)
    said: list[str] = []
    followed = Follower(root, about(), said.append)
    followed.finish("FINISHED", about(), ENDED)
    answers.set()
    assert said == [
        f"MLflow store {store.uri}: no answer within 0.01 s; "
        "evaluate, or `mnist-lstm sync`, adds there later what is missing"
    ]
    while not (found := runs(store)) or found[0].info.status != "FINISHED":
        time.sleep(0.02)
