"""The project's MLflow store: where it is, how it is opened or created, and its errors."""

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
    """The store cannot be reached or refuses a request."""


@dataclass(frozen=True)
class Store:
    """An MLflow store and the experiment in it that holds this project's runs."""

    uri: str
    lock: Path | None  # for `one_process`; None for a server
    client: mlflow.MlflowClient
    experiment_id: str
    moved_from: str | None = None  # the artifacts' folder before the project was moved

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise every error of the store in the block as TrackingError."""
        with _errors_of(self.uri):
            yield


def uri_of(root: Path) -> str:
    """The address of a project's store: MLFLOW_TRACKING_URI, else mlflow.db in its folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve() / 'mlflow.db'}"


def is_server(uri: str) -> bool:
    """Whether a store is a tracking server: it stores artifacts itself, and may not answer."""
    return uri.split(":")[0] in ("http", "https")


def printable(uri: str) -> str:
    """An address without user name and password, for messages."""
    return re.sub(r"//[^/]*@", "//…@", uri)


def open_store(root: Path) -> Store:
    """Open the store of the project in `root`; store and experiment are created where missing.

    Where the project's folder was moved or copied, the artifacts' addresses are corrected. Raises
    TrackingError where the store does not open.
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
            except MlflowException:  # another process has created it meanwhile
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
    """Hold a lock on the file `path` in the block, so that no other process is in such a block.

    None takes no lock: a server orders requests itself, and while it hangs no process may make
    others wait.
    """
    if path is None:
        yield
        return
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _database(uri: str) -> Path | None:
    """The file of an SQLite store; None for another store."""
    scheme, _, path = uri.partition(":///")
    return Path(path).absolute() if scheme == "sqlite" and path and "?" not in path else None


def _open_or_make(database: Path) -> None:
    """Check that a database opens, or create it.

    MLflow would retry a database that does not open for minutes, with warnings. The tables of a new
    one take seconds; they are created in a draft, so that a kill cannot leave half of them.
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
    """Correct the addresses of artifacts in a store; MLflow has no call for that."""
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
        SQLAlchemyError,  # MLflow does not wrap all of them
        CommandError,
        sqlite3.Error,
        ModuleNotFoundError,  # a database's driver
        OSError,
    ) as error:
        raise TrackingError(f"MLflow store {printable(uri)}: {_why(error, uri)}") from error


def _why(error: BaseException, uri: str) -> str:
    """What is wrong with a store and what to do, from the innermost, shortest error."""
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
