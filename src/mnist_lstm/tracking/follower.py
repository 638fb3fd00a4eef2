"""Update a training's MLflow run while it trains. A thread does it, so that no store delays it."""

import platform
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_lstm.pipeline import watched
from mnist_lstm.pipeline.result_files import RunRecord

PAUSES = (1.0, 30.0)  # seconds between two tries after a failure: the first, and the longest
# seconds that a training waits for the store at its end: for a server, which may hang; for a store
# that failed before; for a local file, whose tables may not be complete yet
PATIENCE = {"server": 5.0, "failed": 2.0, "file": 60.0}
# what a failure means, during the training and at its end
GOES_ON = "the training continues, and evaluate will try again"
LATER = "evaluate, or `mnist-lstm sync`, adds there later what is missing"


class Follower:
    """Updates the MLflow run of a training from a thread.

    The first failure of the store is reported. The thread then tries again, with growing pauses.
    The training waits for the store only at its end, and at most PATIENCE seconds. Rows that the
    store still lacks are added later, when `evaluate` or `sync` compares the run with the files.
    """

    def __init__(self, root: Path, about: RunRecord, report: Callable[[str], None]) -> None:
        """Start to log a training to the MLflow store of the project in `root`.

        The thread calls `report` with a line for the first failure, and for each thing that was put
        right in the store.
        """
        self._root, self._about, self._report = root, about, report
        self._has_failed = False
        self._rows: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
        self._end: tuple[str, RunRecord, str] | None = None
        self._news = threading.Event()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._news.set()
        self._thread.start()

    def log_rows(
        self, rows: Sequence[Mapping[str, Any]], timings: Sequence[Mapping[str, Any]]
    ) -> None:
        """Log rows of curve.csv and of timing.csv, one pair for each step. Does not wait."""
        watched.append(rows)
        self._rows += zip(rows, timings, strict=True)
        self._news.set()

    def finish(self, status: str, about: RunRecord, ended: str) -> None:
        """Close the run: FINISHED, FAILED or KILLED, at the time `ended`."""
        from mnist_lstm.tracking.credentials import printable
        from mnist_lstm.tracking.store import is_server, uri_of

        self._end = (status, about, ended)
        self._ends.set()
        self._news.set()
        uri = uri_of(self._root)
        kind = "failed" if self._has_failed else "server" if is_server(uri) else "file"
        self._thread.join(patience := PATIENCE[kind])
        if self._thread.is_alive():
            what = f"MLflow store {printable(uri)}: no answer within {patience:g} s"
            self._report_failure(what, LATER)

    def _follow(self) -> None:
        # imported in the thread: MLflow takes seconds, and the training does not wait for them
        from mnist_lstm.tracking.store import open_store
        from mnist_lstm.tracking.store_errors import TrackingError
        from mnist_lstm.tracking.tracked_run import TrackedRun

        run, pause = None, PAUSES[0]
        while self._news.wait():
            self._news.clear()
            end, rows = self._end, list(self._rows)
            try:
                if run is None:
                    store = open_store(self._root)
                    for line in store.changes:
                        self._report(f"MLflow store: {line}")
                    run = TrackedRun(store, self._about)
                    run.log_trainer(trainer(self._root, self._about.fingerprint))
                if rows:
                    run.log_rows(*zip(*rows, strict=True))
                if end:
                    run.finish(*end)
                pause = PAUSES[0]
            except TrackingError as error:
                self._report_failure(str(error), LATER if self._end else GOES_ON)
                run = None
                self._ends.wait(pause)
                pause = min(2 * pause, PAUSES[1])
                self._news.set()
            if end:
                return

    def _report_failure(self, what: str, then: str) -> None:
        if not self._has_failed:  # report only the first failure
            self._has_failed = True
            self._report(f"{what}; {then}")


def trainer(root: Path, fingerprint: str) -> str:
    """Host and path of the lock file that a training's process holds while it runs."""
    return f"{platform.node()}:{root.resolve() / '.checkpoints' / fingerprint / 'lock'}"
