"""The runs of trials that a search ended early, in real MLflow."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from learners import Learner
from tracked import ROWS, TIMINGS, about

from mnist_lstm import git
from mnist_lstm.commands.search import _tell_mlflow
from mnist_lstm.learning.checkpoint import Checkpoint
from mnist_lstm.pipeline.provenance import Origin
from mnist_lstm.pipeline.result_files import Progress, Training, write_json
from mnist_lstm.runs import listing
from mnist_lstm.runs.audit import disagreements
from mnist_lstm.runs.history import History
from mnist_lstm.runs.pruned import pruned, reasons
from mnist_lstm.runs.search import Trial
from mnist_lstm.runs.unfinished import unfinished
from mnist_lstm.tracking.differences import PRUNED
from mnist_lstm.tracking.store import open_store
from mnist_lstm.tracking.stored_runs import runs
from mnist_lstm.tracking.tracked_run import TrackedRun

EXPERIMENT, WHY = "search-trial-7-abcdef", "pruned at step 50, at 5.00% of the validation images"


class Empty(History):
    """The history of a project without results."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.results, self.partial, self.unreadable = [], [], []
        self._is_in_git = False
        self._note = lambda _: None


def seen(root: Path) -> list[Any]:
    """All that MLflow shows of the runs, but for their ids."""
    store = open_store(root)
    return [
        (
            run.info.run_name,
            run.info.status,
            (run.info.start_time, run.info.end_time),
            run.data.tags,
            run.data.params,
            {
                key: [(m.step, m.timestamp, m.value) for m in history]
                for key in run.data.metrics
                if (history := store.client.get_metric_history(run.info.run_id, key))
            },
        )
        for run in runs(store)
    ]


def mend(root: Path) -> list[list[str]]:
    found = list(disagreements(open_store(root), Empty(root), root))
    for each in found:
        assert each.mend
        each.mend()
    return [each.lines for each in found]


@pytest.mark.parametrize(("diverged", "status"), [(None, "KILLED"), ("the loss is nan", "FAILED")])
def test_the_run_of_a_pruned_trial_comes_back_from_its_checkpoint(
    root: Path, fresh_store: Path, diverged: str | None, status: str
) -> None:
    git.git(root, "init", "--quiet")
    training = Training(about(dvc_experiment=EXPERIMENT), ROWS, TIMINGS)
    state = Progress(100, 1.0, training, diverged).as_state()
    checkpoint = Checkpoint(root / ".checkpoints", "f")
    checkpoint.save(*Learner(0).parts, state)
    assert mend(root) == []  # it may be that somebody just stopped it
    record = root / "searches" / "search" / "trial-7.json"
    write_json(record, {"experiment": EXPERIMENT, "why": None})
    assert mend(root) == []
    write_json(record, {"experiment": EXPERIMENT, "why": WHY})
    with checkpoint.held(lambda _: None):
        assert pruned(root) == []
    (shown,) = listing.runs(Empty(root), unfinished(root / ".checkpoints"), reasons(root))
    assert shown.state == ("stopped at step 100" if diverged else "pruned at step 50")
    assert mend(root) == [["it has no run"]]
    (run,) = seen(root)
    assert run[1:3] == (status, (1767323040000, 1767323140000))
    assert (run[3][PRUNED], run[3]["dvc_experiment"]) == (WHY, EXPERIMENT)
    assert [value for *_, value in run[5]["validation_accuracy"]] == [0.05, 0.1]
    assert mend(root) == []

    shutil.copy(fresh_store, root)  # the store is lost
    assert mend(root) == [["it has no run"]]
    assert seen(root) == [run]


def test_what_the_run_of_a_pruned_trial_lacks_is_added(root: Path) -> None:
    git.git(root, "init", "--quiet")
    record = about(dvc_experiment=EXPERIMENT)
    write_json(root / "trial-7.json", {"experiment": EXPERIMENT, "why": WHY})
    write_json(root / "trial-8.json", {"experiment": 8, "why": [WHY]})
    (root / "trial-9.json").write_text("{")
    checkpoint = Checkpoint(root / ".checkpoints", "f")
    for rows, lines in (
        (1, ["it has no run"]),
        (2, ["6 of its points are missing"]),
    ):
        state = Progress(100, 1.0, Training(record, ROWS[:rows], TIMINGS[:rows])).as_state()
        checkpoint.save(*Learner(0).parts, state)
        assert mend(root) == [lines]
    store = open_store(root)
    (run,) = runs(store)
    store.client.delete_tag(run.info.run_id, PRUNED)
    assert mend(root) == [["its run does not say why it ended early"]]
    assert mend(root) == []


def test_a_run_of_the_same_experiment_in_another_clone_is_not_pruned(
    root: Path, fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'shared.db'}")
    shutil.copy(fresh_store, root / "shared.db")
    store, here = open_store(root), Origin.here(root)
    for letter, folder in (("a", here.folder), ("b", "/another/clone")):
        made = about(
            letter * 32, dvc_experiment=EXPERIMENT, user="ann", host=here.host, folder=folder
        )
        TrackedRun(store, made).log_rows(ROWS, TIMINGS)
    _tell_mlflow(root, Trial(7, {}, {}, EXPERIMENT, why=WHY))
    assert {run.data.tags["folder"]: run.data.tags.get(PRUNED) for run in runs(store)} == {
        here.folder: WHY,
        "/another/clone": None,
    }
