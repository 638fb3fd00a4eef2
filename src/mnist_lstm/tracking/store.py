"""Where the runs are: the MLflow store of the project, opened or made, and what can go wrong."""

import fcntl
import os
import re
import sqlite3
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
from alembic.util import CommandError
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from mnist_lstm import UserError

EXPERIMENT = "mnist-lstm"
# where MLflow keeps absolute addresses of artifacts
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


class TrackingError(UserError):
    """The store cannot be reached or does not take what it is given."""


@dataclass(frozen=True)
class Store:
    """An MLflow store and the experiment in it that holds this project's runs."""

    uri: str
    lock: Path | None  # of `one_process`, for what two processes must not do at once
    client: mlflow.MlflowClient
    experiment_id: str
    moved_from: str | None = None  # where artifacts were, before the project's folder was moved

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Whatever goes wrong with the store in the block is raised as TrackingError."""
        with _errors_of(self.uri):
            yield


def uri_of(root: Path) -> str:
    """Where the store of a project is: MLFLOW_TRACKING_URI, else mlflow.db in its folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve() / 'mlflow.db'}"


def is_server(uri: str) -> bool:
    """Whether a store is a tracking server, which chooses where artifacts are and may be away."""
    return uri.split(":")[0] in ("http", "https")


def printable(uri: str) -> str:
    """An address as it may be printed: without user name and password."""
    return re.sub(r"//[^/]*@", "//…@", uri)


def open_store(root: Path) -> Store:
    """The store of the project in `root`, with its experiment; both are made where missing.

    Where the project's folder was moved or copied, the artifacts are found in the new one.
    Raises TrackingError where the store does not open.
    """
    uri, artifacts = uri_of(root), (root.resolve() / "mlruns").as_uri()
    lock = None if is_server(uri) else root / ".mlflow.lock"
    with _errors_of(uri), one_process(lock):
        if database := _database(uri):
            _open_or_make(database)
        client = mlflow.MlflowClient(uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            try:
                number = client.create_experiment(EXPERIMENT, artifacts if lock else None)
            except MlflowException:  # somebody else was quicker
                experiment = client.get_experiment_by_name(EXPERIMENT)
                if experiment is None:
                    raise
                number = experiment.experiment_id
            return Store(uri, lock, client, number)
        if database == root.resolve() / "mlflow.db" and experiment.artifact_location != artifacts:
            _readdress(database, experiment.artifact_location, artifacts)
            moved_from = experiment.artifact_location
            return Store(uri, lock, client, experiment.experiment_id, moved_from)
        return Store(uri, lock, client, experiment.experiment_id)


@contextmanager
def one_process(path: Path | None) -> Iterator[None]:
    """Be the only process in such a block, by a lock on the file `path`; None is for no lock.

    A server sorts out who comes first, and one that hangs must not make others wait for us.
    """
    if path is None:
        yield
        return
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _database(uri: str) -> Path | None:
    """The file of an SQLite store."""
    scheme, _, path = uri.partition(":///")
    return Path(path).absolute() if scheme == "sqlite" and path and "?" not in path else None


def _open_or_make(database: Path) -> None:
    """Open a database once, or make it.

    One that does not open, MLflow tries for minutes, with warnings. The tables of a fresh one,
    which take it seconds, are made beside it: a kill meanwhile would leave half of them in it.
    """
    database.parent.mkdir(parents=True, exist_ok=True)  # as MLflow does
    if database.exists():
        with closing(sqlite3.connect(database, timeout=60)) as opened:
            opened.execute("PRAGMA schema_version")
        return
    draft = database.with_name(f".{database.name}.draft")
    draft.unlink(missing_ok=True)  # of a process that was killed
    mlflow.MlflowClient(f"sqlite:///{draft}").search_experiments(max_results=1)
    draft.replace(database)


def _readdress(database: Path, before: str, now: str) -> None:
    """Write other addresses of artifacts into a store, for which MLflow has no call."""
    with closing(sqlite3.connect(database, timeout=60)) as opened, opened:
        for table, column in ADDRESSES:
            opened.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (now, len(before) + 1, before, len(before) + 1, f"{before}/"),
            )


@contextmanager
def _errors_of(uri: str) -> Iterator[None]:
    try:
        yield
    except (
        MlflowException,
        SQLAlchemyError,  # not every one of them arrives as MLflow's own
        CommandError,
        sqlite3.Error,
        ModuleNotFoundError,  # a database's driver
        OSError,
    ) as error:
        raise TrackingError(f"MLflow store {printable(uri)}: {_why(error, uri)}") from error


def _why(error: BaseException, uri: str) -> str:
    """What is wrong with a store and what to do; the innermost error has the fewest words."""
    inner = error
    while below := inner.__cause__ or inner.__context__:
        inner = below
    if isinstance(inner, OSError):
        where = f"{inner.filename}: " if inner.filename else ""
        hint = "; see that the server is up and its address right" if uri.startswith("http") else ""
        return f"{where}{inner.strerror or inner}{hint}"
    if isinstance(inner, sqlite3.OperationalError):
        return f"{inner}; see that the disk has room and that you may write there"
    if isinstance(inner, sqlite3.Error):
        return f"{inner}; move that file away, and a new one is made"
    if isinstance(error, CommandError):
        return f"another version of MLflow made it ({error}); move it away, and a new one is made"
    if isinstance(error, ModuleNotFoundError):
        return f"it takes the package {error.name}, which is not here; install it, or use a server"
    return textwrap.shorten(str(error), 300, placeholder=" …")
