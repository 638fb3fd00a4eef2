"""The project's MLflow store: where it is, and how it is opened or created."""

import errno
import fcntl
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import mlflow
from mlflow.entities import Experiment, LifecycleStage, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, ErrorCode

from mnist_lstm.tracking import credentials
from mnist_lstm.tracking.store_errors import ERRORS, TrackingError, errors_of

EXPERIMENT = "mnist-lstm"
PROJECT = "project"  # a tag of the experiment, with that name: people may rename the experiment
KIND = "mlflow.experimentKind"
TRAINING = "custom_model_development"  # MLflow's word for machine learning, as opposed to GenAI
NOTE = "mlflow.note.content"  # what MLflow shows as a description, of whatever has the tag
DESCRIPTION = """\
A dropout LSTM that reads handwritten digits, a pixel row at a time. Each run is one training.

- **A run's name** says which parameters differ from `params.yaml` in its commit. The tag \
`dvc_experiment` has DVC's name of it.
- **Curves** are measured during the training. A bar, `when_trained_…`, is measured once, after it.
- **Choose by `validation_accuracy`.** `test_accuracy` only says how good the chosen run is.
- All of this comes from the result files. `mnist-lstm verify` lists what is missing here or \
contradicts them, `mnist-lstm sync` adds it.
"""
# tables and columns in which MLflow keeps absolute addresses of artifacts
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)
RELATIVE = re.compile(r"(sqlite(?:\+\w+)?:///)([^/:?][^?]*)")  # an address, and a path in it
MALFORMED = (
    "MLFLOW_TRACKING_URI: the password in it has a character that an address cannot have; write "
    "%2F for /, %3F for ?, %23 for #, or set MLFLOW_TRACKING_PASSWORD instead"
)


@dataclass(frozen=True)
class Store:
    """The MLflow store of the project in `root`, and the experiment that holds its runs.

    `changes` lists what was corrected when it was opened, each as one sentence.
    """

    root: Path
    uri: str
    lock: Path | None  # for `one_process`; None for a server
    client: mlflow.MlflowClient
    experiment_id: str
    changes: Sequence[str] = ()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise every error of the store in the block as TrackingError."""
        with errors_of(self.uri, EXPERIMENT):
            yield


class _Client(mlflow.MlflowClient):
    """MLflow's client, for a store that others write to at the same time.

    To set a tag or an alias, MLflow looks for it, then inserts or changes it. So of two who set a
    new one at once, one gets the database's error, as BAD_REQUEST. The second attempt finds it.
    """

    def set_experiment_tag(self, *args: Any, **kwargs: Any) -> None:
        _at_most_twice(super().set_experiment_tag, *args, **kwargs)

    def set_registered_model_alias(self, *args: Any, **kwargs: Any) -> None:
        _at_most_twice(super().set_registered_model_alias, *args, **kwargs)

    def set_registered_model_tag(self, *args: Any, **kwargs: Any) -> None:
        _at_most_twice(super().set_registered_model_tag, *args, **kwargs)


def _at_most_twice(request: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    try:
        request(*args, **kwargs)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(BAD_REQUEST):
            raise
        request(*args, **kwargs)


def all_pages(ask: Callable[[str | None], Any]) -> list[Any]:
    """All that MLflow returns in pages. `ask` returns the page of a token; of None, the first."""
    page = ask(None)
    found = [*page]
    while page.token:
        page = ask(page.token)
        found += page
    return found


def uri_of(root: Path) -> str:
    """The address of a project's store: MLFLOW_TRACKING_URI, otherwise mlflow.db in its folder.

    The relative path of a database is that from the project's folder, also where a stage runs in a
    temporary copy: the variable is changed, since MLflow reads it.
    """
    credentials.hide()  # before MLflow reads the variable
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if not given:
        return uri_of_file(root.resolve() / "mlflow.db")
    if relative := RELATIVE.fullmatch(given):
        given = f"{relative[1]}{root.resolve() / relative[2]}"
        os.environ["MLFLOW_TRACKING_URI"] = given
    return given


def is_server(uri: str) -> bool:
    """Whether a store is a tracking server: it stores artifacts itself, and may not answer."""
    return uri.split(":")[0] in ("http", "https")


def open_store(root: Path) -> Store:
    """Open the store of the project in `root`. A missing store or experiment is created.

    If the project's folder was moved or copied, the artifacts' addresses are corrected. If the
    experiment was deleted, it is restored. Raises TrackingError if the store does not open.
    """
    if credentials.is_malformed(uri_of(root)):
        raise TrackingError(MALFORMED)
    uri, artifacts = uri_of(root), (root.resolve() / "mlruns").as_uri()
    database = _database(uri)
    # ValueError: no address at all
    with errors_of(uri, EXPERIMENT, ValueError), one_process(lock := _lock(root, uri, database)):
        if database:
            _open_or_make(database)
        client = _Client(uri)
        experiment = _experiment(client, artifacts if lock else None)
        changes = []
        if experiment.lifecycle_stage == LifecycleStage.DELETED:
            client.restore_experiment(experiment.experiment_id)
            changes.append(f"the experiment {experiment.name} was deleted: restored, with its runs")
        before = experiment.artifact_location
        if database == root.resolve() / "mlflow.db" and before != artifacts:
            _readdress(database, before, artifacts)
            changes.append(f"the project was moved: its artifacts were in {before} before")
        _describe(client, experiment)
        return Store(root, uri, lock, client, experiment.experiment_id, changes)


def _lock(root: Path, uri: str, database: Path | None) -> Path | None:
    """The lock file of a store: None for a server, and for an SQLite file the one beside it.

    So clones that share the file share the lock, also where one of them has the file in its folder.
    Any other store, and a file whose address has parameters, has the lock in the project's folder.
    """
    if is_server(uri):
        return None
    if database and not database.is_dir():
        database.parent.mkdir(parents=True, exist_ok=True)  # as MLflow does
        beside = database.with_name(".mlflow.lock")
        if beside.exists() or os.access(database.parent, os.W_OK):
            return beside
    return root / ".mlflow.lock"


@contextmanager
def one_process(path: Path | None) -> Iterator[None]:
    """Hold a lock on the file `path`, so that only one process at a time is in such a block.

    None takes no lock: a server orders requests itself, and if it hangs, no process may make others
    wait.
    """
    if path is None:
        yield
        return
    lock = _opened(path)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            fcntl.flock(lock, fcntl.LOCK_SH)  # NFS, and the file is open to read only
        yield
    finally:
        os.close(lock)


def _opened(path: Path) -> int:
    """A lock file, open to write as NFS requires. In a project that is read-only, open to read."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS):
            raise
        return os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)


def _experiment(client: mlflow.MlflowClient, artifacts: str | None) -> Experiment:
    """The project's experiment, even if it was renamed or deleted. It is created if missing."""
    named = client.get_experiment_by_name(EXPERIMENT)
    if named and PROJECT in named.tags:
        return named
    if renamed := client.search_experiments(
        ViewType.ALL, filter_string=f"tags.{PROJECT} = '{EXPERIMENT}'"
    ):
        return min(renamed, key=lambda found: found.lifecycle_stage)  # active before deleted
    if named:
        return named
    try:
        tags = {PROJECT: EXPERIMENT}
        return client.get_experiment(client.create_experiment(EXPERIMENT, artifacts, tags))
    except MlflowException:  # another process has created it meanwhile
        if experiment := client.get_experiment_by_name(EXPERIMENT):
            return experiment
        raise


def _describe(client: mlflow.MlflowClient, experiment: Experiment) -> None:
    """Give the experiment MLflow's pages for machine learning, and what it lacks.

    That is a description, and the tag by which it is found if it was renamed. Who may only read the
    store leaves that to others.
    """
    with suppress(*ERRORS):  # whatever refuses: other calls report what is wrong with a store
        if PROJECT not in experiment.tags:
            client.set_experiment_tag(experiment.experiment_id, PROJECT, EXPERIMENT)
        if experiment.tags.get(KIND) != TRAINING:
            client.set_experiment_tag(experiment.experiment_id, KIND, TRAINING)
        if NOTE not in experiment.tags:
            client.set_experiment_tag(experiment.experiment_id, NOTE, DESCRIPTION)


def _database(uri: str) -> Path | None:
    """The file of an SQLite store, without symbolic links; None for any other store."""
    scheme, _, path = uri.partition(":///")
    if scheme.split("+")[0] != "sqlite" or not path or "?" in path:
        return None
    return Path(unquote(path)).resolve()


def uri_of_file(database: Path) -> str:
    """The address of an SQLite store.

    If characters are escaped, the address names the driver too: in the shorter form, MLflow would
    not unescape the folder's name, and would create a folder of the escaped name.
    """
    path = re.sub("[%?#]", lambda found: quote(found[0]), str(database))
    return f"{'sqlite' if path == str(database) else 'sqlite+pysqlite'}:///{path}"


def _open_or_make(database: Path) -> None:
    """Check that a database opens, or create it.

    MLflow would retry a database that does not open for minutes, with warnings. The tables of a new
    one take seconds; they are created in a draft, so that a kill cannot leave half of them.
    """
    if database.exists():
        with closing(sqlite3.connect(database, timeout=60)) as opened:
            opened.execute("PRAGMA schema_version")
        return
    draft = database.with_name(f".{database.name}.draft")
    for end in ("", "-journal", "-wal", "-shm"):  # left by a process that was killed
        draft.with_name(f"{draft.name}{end}").unlink(missing_ok=True)
    try:
        mlflow.MlflowClient(uri_of_file(draft)).search_experiments(max_results=1)
        draft.replace(database)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _readdress(database: Path, before: str, now: str) -> None:
    """Correct the addresses of artifacts in a store; MLflow has no call for that."""
    with closing(sqlite3.connect(database, timeout=60)) as opened, opened:
        for table, column in ADDRESSES:
            opened.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (now, len(before) + 1, before, len(before) + 1, f"{before}/"),
            )
