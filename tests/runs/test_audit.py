"""Disagreements between results and the MLflow store."""

import fcntl
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from learners import Learner
from tracked import ROWS, TIMINGS, about, leave_results

from mnist_lstm import UserError
from mnist_lstm.commands.sync import sync_runs
from mnist_lstm.files import sha256
from mnist_lstm.learning.checkpoint import Checkpoint
from mnist_lstm.pipeline.provenance import Origin
from mnist_lstm.pipeline.result_files import Progress, Training, read_run
from mnist_lstm.runs.audit import Disagreement, disagreements
from mnist_lstm.runs.history import Files, History, Result
from mnist_lstm.tracking.follower import trainer
from mnist_lstm.tracking.store import Store, open_store
from mnist_lstm.tracking.stored_runs import runs
from mnist_lstm.tracking.tracked_run import TrackedRun


class OneResult(History):
    """The history of a folder with results of train and evaluate."""

    def __init__(self, results: Path) -> None:
        self.root = results  # no repository, and so without groups
        made = [{str(path): "" for path in (results / s).iterdir()} for s in ("train", "evaluate")]
        self.results = [Result(read_run(results / "train" / "run.json"), made[0], [made[1]])]

    @contextmanager
    def laid_out(self, *every: Files) -> Iterator[list[Path]]:
        yield [Path(next(iter(files))).parent for files in every]


@pytest.fixture
def history(results: Path) -> History:
    return OneResult(results)


@contextmanager
def dvc_at_work(root: Path) -> Iterator[None]:
    """The note that DVC leaves while it runs a stage; afterwards, the note of a killed dvc."""
    note = root / ".dvc" / "tmp" / "exps" / "standalone" / "tmp1" / ".dvc" / "tmp" / "rwlock"
    note.parent.mkdir(parents=True)
    dvc = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    note.write_text(
        json.dumps({"write": {}, "read": {"src": [{"pid": dvc.pid, "cmd": "dvc repro"}]}})
    )
    try:
        yield
    finally:
        dvc.communicate()


def found(store: Store, history: History, root: Path) -> list[Disagreement]:
    return list(disagreements(store, history, root))


def test_a_result_without_a_run(store: Store, history: History, root: Path) -> None:
    (one,) = found(store, history, root)
    assert (one.name, one.training_id, one.lines) == ("drawn", "a" * 32, ["it has no run"])
    assert one.mend
    one.mend()
    assert found(store, history, root) == []


def test_a_result_that_cannot_be_read_is_listed(
    store: Store, history: History, results: Path, root: Path
) -> None:
    found(store, history, root)[0].mend()  # type: ignore[misc]
    (results / "train" / "timing.csv").write_text("step,time,seconds\n1,2,3\n")
    (one,) = found(store, history, root)
    assert one.lines[0].endswith(
        'timing.csv: line 2: time must be a time in ISO 8601, is "2"; it is damaged, or of '
        "another version of this project"
    )
    assert one.mend is None
    assert len(runs(store)) == 1


def test_a_model_that_cannot_be_loaded_ends_nothing(
    store: Store, history: History, results: Path, root: Path, tmp_path: Path
) -> None:
    """The SHA-256 is the recorded one. Nothing is made of it, and later results are shown."""
    train = leave_results(tmp_path / "other", about("b" * 32)) / "train"
    (train / "model.safetensors").write_bytes(b"of another version")
    digest = sha256(train / "model.safetensors")
    finished = about("b" * 32).finished(TIMINGS[-1]["time"], digest)
    Training(finished, ROWS, TIMINGS).write(train)
    history.results = [*OneResult(tmp_path / "other").results, *history.results]
    assert sync_runs(store, history, None) == (1, 1)
    assert [run.data.tags["training_id"] for run in runs(store)] == ["a" * 32]
    (one,) = found(store, history, root)
    assert (one.training_id, one.lines) == ("b" * 32, ["it has no run"])
    assert one.mend
    with pytest.raises(UserError, match=r"^results/train/model\.safetensors: not a model as train"):
        one.mend()
    assert len(runs(store)) == 1


def test_a_run_that_exists_twice(store: Store, history: History, root: Path) -> None:
    found(store, history, root)[0].mend()  # type: ignore[misc]
    (first,) = runs(store)
    second = store.client.create_run(store.experiment_id, tags={"training_id": "a" * 32})
    (one,) = found(store, history, root)
    assert one.lines == [f"it has a second run, {second.info.run_id}"]
    assert one.mend
    one.mend()
    assert [run.info.run_id for run in runs(store)] == [first.info.run_id]


def test_a_run_whose_model_no_result_has(store: Store, history: History, root: Path) -> None:
    found(store, history, root)[0].mend()  # type: ignore[misc]
    TrackedRun(store, about("b" * 32)).finish("FINISHED", about("b" * 32), TIMINGS[0]["time"])
    (one,) = found(store, history, root)
    assert (one.training_id, one.lines) == ("b" * 32, ["no result here has its model"])
    assert one.mend is None


@pytest.mark.parametrize(
    ("origin", "experiment", "brings"),
    [
        ({"host": "elsewhere"}, "slow-dew", "`dvc exp pull origin slow-dew` brings them"),
        ({"host": "elsewhere"}, "a; rm *", "`dvc exp pull origin 'a; rm *'` brings them"),
        ({"folder": "/another/clone"}, None, "`git pull` and then `dvc fetch --all-commits"),
    ],
)
def test_a_run_that_was_made_elsewhere_is_a_note(
    root: Path,
    history: History,
    monkeypatch: pytest.MonkeyPatch,
    origin: dict[str, str],
    experiment: str | None,
    brings: str,
) -> None:
    own = {"user": "bo", "host": platform.node(), "folder": str(root.resolve())}
    record = about("b" * 32, dvc_experiment=experiment, **own | origin)
    lines = []
    for uri in (f"sqlite:///{root / 'shared.db'}", None):
        if uri:
            shutil.copy(root / "mlflow.db", root / "shared.db")
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        else:
            monkeypatch.delenv("MLFLOW_TRACKING_URI")
        store = open_store(root)
        found(store, history, root)[0].mend()  # type: ignore[misc]
        assert store.client.get_run(TrackedRun(store, record).id).info.user_id == "bo"
        if uri:  # no process here trains it; it begins or ends at this moment
            assert found(store, history, root) == []
        TrackedRun(store, record).finish("FINISHED", record, TIMINGS[0]["time"])
        (one,) = found(store, history, root)
        assert one.mend is None
        lines.append((one.note, *one.lines))
    made = f"made by bo on {record.host}, and its results are not here: {brings}"
    assert lines[0][0]
    assert lines[0][1].startswith(made)
    # the project's own file has no run of others: the project was moved, and its host renamed
    assert lines[1] == (False, "no result here has its model")


def test_a_run_without_results_that_was_made_here_is_no_note(
    root: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(root / "mlflow.db", root / "shared.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'shared.db'}")
    store = open_store(root)
    found(store, history, root)[0].mend()  # type: ignore[misc]
    for letter, origin in (("b", vars(Origin.here(root))), ("c", {})):
        record = about(letter * 32, **origin)
        TrackedRun(store, record).finish("FINISHED", record, TIMINGS[0]["time"])
    for one in found(store, history, root):
        assert (one.note, one.lines) == (False, ["no result here has its model"])


def test_a_run_marked_as_running_that_nothing_trains(
    store: Store, history: History, root: Path
) -> None:
    found(store, history, root)[0].mend()  # type: ignore[misc]
    run = TrackedRun(store, about("b" * 32))
    lock = root / ".checkpoints" / "f" / "lock"
    lock.parent.mkdir(parents=True)
    run.log_rows(ROWS, TIMINGS)
    run.log_trainer(trainer(root, "f"))
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert found(store, history, root) == []  # it is at work
    (one,) = found(store, history, root)
    assert one.lines == ["it is marked as running, but no process trains it"]
    assert one.mend
    one.mend()
    killed = store.client.get_run(run.id)
    assert (killed.info.status, killed.info.end_time) == ("KILLED", 1767323140000)
    assert found(store, history, root) == []

    run = TrackedRun(store, about("c" * 32))
    run.log_trainer("another-machine:/its/lock")
    assert found(store, history, root) == []


@pytest.mark.parametrize("when", ["before it is listed", "before it is mended"])
@pytest.mark.parametrize("what", ["ends", "goes on", "is deleted"])
def test_a_run_that_changes_during_verify_is_not_marked_as_killed(
    store: Store, history: History, root: Path, when: str, what: str
) -> None:
    found(store, history, root)[0].mend()  # type: ignore[misc]
    for letter, minute in (("b", 7), ("c", 8)):  # the first is listed while the second changes
        record = about(letter * 32, started=f"2026-01-02T03:{minute:02}:00+00:00")
        TrackedRun(store, record).log_trainer(trainer(root, letter))
    listed = disagreements(store, history, root)
    assert next(listed).training_id == "b" * 32
    if when == "before it is mended":
        (one,) = listed
    lock = root / ".checkpoints" / "c" / "lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        run = TrackedRun(store, record)
        if what == "ends":
            run.finish("FINISHED", record, "2026-01-02T04:00:00+00:00")
        elif what == "goes on":
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            store.client.delete_run(run.id)
        before = store.client.get_run(run.id).info
        if when == "before it is mended":
            assert one.mend
            one.mend()
        else:
            assert list(listed) == []
    now = store.client.get_run(run.id).info
    assert (now.status, now.lifecycle_stage) == (before.status, before.lifecycle_stage)


def test_a_run_of_another_clone_on_this_machine_is_not_marked_as_killed(
    root: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock file is in a folder that cannot be seen here, as in another container."""
    shutil.copy(root / "mlflow.db", root / "shared.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'shared.db'}")
    store, theirs = open_store(root), root / "another" / "clone"
    found(store, history, root)[0].mend()  # type: ignore[misc]
    for letter, folder in (("b", theirs), ("c", root)):
        record = about(letter * 32, user="bo", host=platform.node(), folder=str(folder.resolve()))
        TrackedRun(store, record).log_trainer(trainer(folder, "f"))
    assert [one.training_id for one in found(store, history, root)] == ["c" * 32]


def test_a_run_marked_as_finished_that_dvc_has_not_recorded(
    store: Store, history: History, root: Path
) -> None:
    """Its trainer was killed before that; the checkpoint, from which it goes on, is still there."""
    found(store, history, root)[0].mend()  # type: ignore[misc]
    record = about("b" * 32)
    run = TrackedRun(store, record)
    run.finish("FINISHED", record, TIMINGS[0]["time"])
    state = Progress(100, 1.0, Training(record, ROWS, TIMINGS)).as_state()
    checkpoint = Checkpoint(root / ".checkpoints", "f")
    with checkpoint.held(lambda _: None):
        checkpoint.save(*Learner(0).parts, state)
        assert found(store, history, root) == []  # it is about to be recorded
    with dvc_at_work(root):
        assert found(store, history, root) == []
    (one,) = found(store, history, root)
    assert one.lines == ["it is marked as finished, but was stopped before DVC recorded it"]
    assert one.mend
    one.mend()
    assert store.client.get_run(run.id).info.status == "KILLED"
    assert found(store, history, root) == []


def test_a_run_that_failed_needs_no_result(store: Store, tmp_path: Path, root: Path) -> None:
    history = OneResult(leave_results(tmp_path / "others"))
    found(store, history, root)[0].mend()  # type: ignore[misc]
    for letter, status in (("b", "KILLED"), ("c", "FAILED")):
        record = about(letter * 32)
        TrackedRun(store, record).finish(status, record, TIMINGS[0]["time"])
    assert found(store, history, root) == []


def test_runs_without_results_are_listed_by_their_start(store: Store, root: Path) -> None:
    history = OneResult(leave_results(root / "results"))
    found(store, history, root)[0].mend()  # type: ignore[misc]
    for letter, minute in (("c", 7), ("b", 9), ("d", 8)):
        record = about(letter * 32, started=f"2026-01-02T03:{minute:02}:00+00:00")
        TrackedRun(store, record).finish("FINISHED", record, "2026-01-02T04:00:00+00:00")
    for _ in range(2):
        assert [one.training_id[0] for one in found(store, history, root)] == ["c", "d", "b"]
