"""Store and results side by side: what disagrees, and how it is mended."""

import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mlflow

from mnist_lstm.runs.history import History, Result
from mnist_lstm.runs.unfinished import is_held
from mnist_lstm.tracking.follower import trainer
from mnist_lstm.tracking.projection import (
    TRAINER,
    close,
    differences,
    metrics,
    project,
    runs,
)
from mnist_lstm.tracking.store import Store
from mnist_lstm.tracking.view import View


@dataclass(frozen=True)
class Disagreement:
    """One of a training: its name, its training_id, and what is wrong, a line each.

    `mend` puts it right; None where nothing can.
    """

    name: str
    training_id: str
    lines: list[str]
    mend: Callable[[], object] | None


def disagreements(store: Store, history: History, root: Path) -> Iterator[Disagreement]:
    """What the results say and the store does not, then what the store says and no result does.

    Raises TrackingError.
    """
    known = {result.about["training_id"] for result in history.results}
    with store.errors():
        shown: dict[str, list[mlflow.entities.Run]] = {}
        for run in runs(store):
            shown.setdefault(run.data.tags.get("training_id", ""), []).append(run)
    for result in history.results:
        yield from _of_result(store, history, result, shown.get(result.about["training_id"], []))
    for training_id in shown.keys() - known:
        for run in shown[training_id]:
            yield from _of_run(store, run, root)


def view(history: History, result: Result) -> View:
    """What MLflow is to show of a result."""
    with tempfile.TemporaryDirectory() as scratch:
        training = history.lay_out(result.training, Path(scratch) / "train")
        evaluations = [
            history.lay_out(files, Path(scratch) / str(number))
            for number, files in enumerate(result.evaluations)
        ]
        return View.read(training, evaluations)


def _of_result(
    store: Store, history: History, result: Result, found: list[mlflow.entities.Run]
) -> Iterator[Disagreement]:
    name, training_id = result.about["name"], result.about["training_id"]
    expected = view(history, result)
    if lines := differences(store, found[0], expected).lines() if found else ["it has no run"]:
        yield Disagreement(name, training_id, lines, partial(project, store, expected))
    for run in found[1:]:
        line = f"it has another run, {run.info.run_id}"
        yield Disagreement(name, training_id, [line], partial(_delete, store, run))


def _of_run(store: Store, run: mlflow.entities.Run, root: Path) -> Iterator[Disagreement]:
    name, training_id = run.info.run_name, run.data.tags.get("training_id", "")
    if run.info.status == "RUNNING" and not _is_at_work(run, root):
        line = "it is marked as running, and nothing trains it"
        yield Disagreement(name, training_id, [line], partial(_kill, store, run))
    elif run.info.status == "FINISHED":
        line = "no result here has its model"
        yield Disagreement(name, training_id, [line], None)


def _is_at_work(run: mlflow.entities.Run, root: Path) -> bool:
    """Whether its process is there; where that is another machine, it is believed to be."""
    tags = run.data.tags
    host, _, lock = tags.get(TRAINER, trainer(root, tags.get("fingerprint", ""))).partition(":")
    return host != platform.node() or is_held(Path(lock))


def _kill(store: Store, run: mlflow.entities.Run) -> None:
    """Mark as killed, as of when it was last heard of."""
    with store.errors():
        heard = [metric.timestamp for metric in metrics(store, run)]
        close(store, run, "KILLED", max(heard, default=run.info.start_time))


def _delete(store: Store, run: mlflow.entities.Run) -> None:
    with store.errors():
        store.client.delete_run(run.info.run_id)
