"""Open real MLflow stores, on temporary SQLite files."""

import errno
import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, PERMISSION_DENIED
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache
from tracked import about, leave_results

from mnist_lstm.tracking.differences import differences
from mnist_lstm.tracking.projection import project
from mnist_lstm.tracking.store import (
    EXPERIMENT,
    KIND,
    NOTE,
    open_store,
    uri_of,
)
from mnist_lstm.tracking.store_errors import TrackingError
from mnist_lstm.tracking.stored_runs import runs
from mnist_lstm.tracking.tracked_run import TrackedRun
from mnist_lstm.tracking.view import View


def test_the_store_is_in_the_root_or_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert uri_of(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert uri_of(tmp_path) == "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("sqlite:///team.db", "sqlite:///{root}/team.db"),
        ("sqlite+pysqlite:///stores/team.db", "sqlite+pysqlite:///{root}/stores/team.db"),
        ("sqlite:////srv/team.db", "sqlite:////srv/team.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
    ],
)
def test_a_relative_address_is_from_the_projects_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, used: str
) -> None:
    """Also in the temporary copy in which DVC runs an experiment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert uri_of(tmp_path) == used.format(root=tmp_path)
    assert os.environ["MLFLOW_TRACKING_URI"] == used.format(root=tmp_path)
    monkeypatch.chdir("/")
    assert uri_of(tmp_path) == used.format(root=tmp_path)


@pytest.mark.parametrize("code", [BAD_REQUEST, PERMISSION_DENIED])
def test_a_tag_is_set_again_only_if_another_one_may_have_set_it_meanwhile(
    tmp_path: Path, fresh_store: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    shutil.copy(fresh_store, tmp_path)
    store = open_store(tmp_path)
    store.client.create_registered_model("m")
    asked, really = [], MlflowClient.set_registered_model_tag

    def fail_once(client: MlflowClient, *what: str) -> None:
        asked.append(what)
        if len(asked) == 1:
            raise MlflowException("UNIQUE constraint failed", code)
        really(client, *what)

    monkeypatch.setattr(MlflowClient, "set_registered_model_tag", fail_once)
    if code == BAD_REQUEST:
        store.client.set_registered_model_tag("m", "a", "b")
        assert store.client.get_registered_model("m").tags == {"a": "b"}
    else:
        with pytest.raises(MlflowException, match="UNIQUE"):
            store.client.set_registered_model_tag("m", "a", "b")
        assert len(asked) == 1


@pytest.mark.parametrize("name", ["what?", "50%41", "a#b c", "ä?x=1&y"])
def test_a_folders_name_may_have_characters_that_mean_something_in_urls(
    tmp_path: Path, fresh_store: Path, name: str
) -> None:
    root = tmp_path / name
    root.mkdir()
    shutil.copy(fresh_store, root)
    view = View.read(*folders(leave_results(root / "results")))
    project(open_store(root), view)
    store = open_store(root)
    (run,) = runs(store)
    assert differences(store, run, view).lines() == []
    assert store.changes == []
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (root / "mlruns" / run.info.run_id).is_dir()


def test_an_experiment_that_was_deleted_is_restored(root: Path) -> None:
    view = View.read(*folders(leave_results(root / "results")))
    store = open_store(root)
    project(store, view)
    store.client.delete_experiment(store.experiment_id)
    restored = open_store(root)
    assert restored.changes == ["the experiment mnist-lstm was deleted: restored, with its runs"]
    assert project(restored, view) == []
    assert open_store(root).changes == []


def test_a_run_that_comes_back_with_its_experiment_is_not_a_second_one(root: Path) -> None:
    view = View.read(*folders(leave_results(root / "results")))
    store = open_store(root)
    project(store, view)
    (before,) = runs(store)
    store.client.log_metric(before.info.run_id, "train_loss", 7.0, step=60)
    store.client.delete_run(before.info.run_id)
    project(store, view)
    (made,) = runs(store)
    store.client.delete_experiment(store.experiment_id)
    restored = open_store(root)
    assert len(runs(restored)) == 2
    assert project(restored, view) == [f"it has a second run, {before.info.run_id}"]
    assert [run.info.run_id for run in runs(restored)] == [made.info.run_id]
    assert project(restored, view) == []


def test_an_experiment_that_was_renamed_is_found_again(root: Path) -> None:
    client = open_store(root).client
    (made,) = (one for one in client.search_experiments() if one.name == EXPERIMENT)
    with closing(sqlite3.connect(root / "mlflow.db")) as opened, opened:
        opened.execute("DELETE FROM experiment_tags")  # as an earlier version left it
    open_store(root)
    client.rename_experiment(made.experiment_id, "Digits")
    count = len(client.search_experiments())
    assert open_store(root).experiment_id == made.experiment_id
    other = client.create_experiment(EXPERIMENT)  # of somebody else
    assert open_store(root).experiment_id == made.experiment_id
    client.delete_experiment(other)
    assert len(client.search_experiments()) == count
    client.delete_experiment(made.experiment_id)
    restored = open_store(root)
    assert restored.experiment_id == made.experiment_id
    assert restored.changes == ["the experiment Digits was deleted: restored, with its runs"]


def test_the_experiment_opens_on_pages_for_machine_learning_with_a_description(root: Path) -> None:
    def tags() -> dict[str, str]:
        return dict(store.client.get_experiment(store.experiment_id).tags)

    store = open_store(root)
    assert tags()[KIND] == "custom_model_development"
    assert tags()[NOTE].startswith("A dropout LSTM that reads handwritten digits")
    # a store of an earlier version, and people's own words
    store.client.set_experiment_tag(store.experiment_id, KIND, "genai_development")
    store.client.set_experiment_tag(store.experiment_id, NOTE, "ours")
    open_store(root)
    assert (tags()[KIND], tags()[NOTE]) == ("custom_model_development", "ours")


def test_the_experiment_has_an_absolute_place_for_artifacts(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    store = open_store(root)
    experiment = store.client.get_experiment(store.experiment_id)
    assert experiment.name == EXPERIMENT == "mnist-lstm"
    assert experiment.artifact_location == (root / "mlruns").as_uri()
    again = open_store(root)
    assert (again.experiment_id, again.changes) == (store.experiment_id, [])


def test_several_processes_may_open_a_store_at_once(tmp_path: Path) -> None:
    """The store does not exist yet: each process would try to create its tables."""
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(open_store(tmp_path).experiment_id))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_two_clones_that_make_the_same_store_at_once_both_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/srv/team.db")
    begun, second, making = threading.Event(), threading.Event(), []
    search = MlflowClient.search_experiments

    def search_while_another_begins(client: MlflowClient, *what: Any, **how: Any) -> Any:
        if how.get("max_results") == 1:  # makes the tables
            making.append(client)
            (second if begun.is_set() else begun).set()
            second.wait(1)
        return search(client, *what, **how)

    monkeypatch.setattr(MlflowClient, "search_experiments", search_while_another_begins)
    (tmp_path / "ann").mkdir()
    (tmp_path / "bo").mkdir()
    with ThreadPoolExecutor() as threads:
        ann = threads.submit(open_store, tmp_path / "ann")
        assert begun.wait(60)
        bo = threads.submit(open_store, tmp_path / "bo")
        assert ann.result().experiment_id == bo.result().experiment_id
    assert len(making) == 1


@pytest.mark.parametrize("place", ["ann/mlflow.db", "link/mlflow.db", "bo/mlflow.db"])
def test_clones_that_share_the_store_of_one_of_them_share_its_lock(
    tmp_path: Path, fresh_store: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Whatever path leads to the file: its own, that of a linked folder, or a linked file."""
    for name in ("ann", "bo"):
        (tmp_path / name).mkdir()
    shutil.copy(fresh_store, tmp_path / "ann")
    (tmp_path / "link").symlink_to("ann")
    (tmp_path / "bo" / "mlflow.db").symlink_to("../ann/mlflow.db")
    ann = open_store(tmp_path / "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / place}")
    bo = open_store(tmp_path / "bo")
    assert bo.experiment_id == ann.experiment_id
    assert bo.changes == []  # the artifacts stay at Ann's
    assert ann.lock == bo.lock == tmp_path.resolve() / "ann" / ".mlflow.lock"


def test_a_store_of_an_earlier_version_that_one_may_only_read_opens(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lacks the tags and the description, which only add to it."""
    made = open_store(root)
    with closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        database.execute("DELETE FROM experiment_tags")
    address = f"sqlite:///file:{root}/mlflow.db?mode=ro&uri=true"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    store = open_store(root)
    assert store.experiment_id == made.experiment_id
    assert runs(store) == []
    with pytest.raises(TrackingError, match="attempt to write a readonly database"):
        TrackedRun(store, about())


def flock_of_nfs(lock: int, kind: int, really: Callable[[int, int], None] = fcntl.flock) -> None:
    if kind & fcntl.LOCK_EX and fcntl.fcntl(lock, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    really(lock, kind)


def test_a_store_opens_on_nfs_also_if_it_is_read_only(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", flock_of_nfs)
    open_store(root)
    lock, really = root / ".mlflow.lock", os.open

    def read_only(path: object, flags: int, *mode: int, **other: Any) -> int:
        if path == lock and flags & os.O_RDWR:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return really(path, flags, *mode, **other)  # type: ignore[arg-type]

    monkeypatch.setattr("os.open", read_only)
    open_store(root)


def test_a_kill_while_the_tables_are_made_leaves_none(tmp_path: Path) -> None:
    code = "import sys; from mnist_lstm.tracking.store import *; open_store(Path(sys.argv[1]))"
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path])
    draft = tmp_path / ".mlflow.db.draft"
    while not (draft.exists() and tables(draft)):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "mlflow.db").exists()
    half = tables(draft)
    draft.with_name(f"{draft.name}-journal").touch()  # SQLite's, where it comes in a transaction
    open_store(tmp_path)
    assert not list(tmp_path.glob(".mlflow.db.draft*"))
    assert len(tables(tmp_path / "mlflow.db")) > len(half)


def tables(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as opened:
        return opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_project_in_another_folder_finds_its_artifacts(
    root: Path, tmp_path_factory: pytest.TempPathFactory, how: str
) -> None:
    view = View.read(*folders(leave_results(root / "results")))
    project(open_store(root), view)
    (before,) = runs(open_store(root))
    there = tmp_path_factory.mktemp("elsewhere") / "project"
    shutil.copytree(root, there)
    if how == "moved":
        shutil.rmtree(root)

    _artifact_repos_cache.clear()  # which another process would not have
    store = open_store(there)
    (change,) = store.changes
    assert (root / "mlruns").as_uri() in change
    (run,) = runs(store)
    assert run.info.run_id == before.info.run_id
    assert differences(store, run, view).lines() == []
    model = store.client.get_logged_model(run.outputs.model_outputs[0].model_id)
    for uri in (run.info.artifact_uri, model.artifact_location):
        path = Path(urlparse(uri).path)
        assert path.is_relative_to(there / "mlruns")
        assert path.is_dir()
    assert open_store(there).changes == []
    if how == "copied":
        (left,) = runs(open_store(root))
        assert left.info.artifact_uri == before.info.artifact_uri


def folders(results: Path) -> tuple[Path, list[Path]]:
    return results / "train", [results / "evaluate"]


def test_a_store_that_does_not_open_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"^MLflow store http://127\.0\.0\.1:9: ") as error:
        open_store(tmp_path)
    assert "\n" not in str(error.value)


def test_no_usage_reports_are_sent() -> None:
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()
