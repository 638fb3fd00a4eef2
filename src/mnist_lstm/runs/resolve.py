"""The run that a RUN names: by its name, its id, a DVC experiment, or the start of one of these.

One rule holds for the results here and for the runs in MLflow: a whole name comes before the start
of one. MLflow, whose import takes seconds, is asked where no result here is called so.
"""

import difflib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mnist_lstm import UserError
from mnist_lstm.pipeline.result_files import parse_evaluation, parse_metrics, parse_run
from mnist_lstm.runs.elsewhere import how_to_get, is_elsewhere
from mnist_lstm.runs.history import History, Partial, Result
from mnist_lstm.runs.reproduction import RunResults

if TYPE_CHECKING:
    from mnist_lstm.tracking.stored_runs import StoredRun

NO_RUN_YET = "no run yet: `dvc repro` makes one"
FETCH = (
    "`dvc repro` makes the results of params.yaml; `dvc fetch --all-commits --run-cache` downloads "
    "what a DVC remote has"
)
LISTED = 10  # names in a message

Candidate = TypeVar("Candidate")
Some = TypeVar("Some", bound=Result | Partial)


class NoSuchRun(UserError):
    """No result here is called so."""


class StoreFailed(NoSuchRun):
    """No result here is called so, and MLflow could not be asked."""


def find(history: History, text: str) -> Result:
    """The one whole result that `text` names.

    Raises NoSuchRun where there is none, and UserError with the candidates where there are several.
    """
    candidates = history.results
    matching = _matching(candidates, text, _names)
    if not matching and (others := _matching(history.partial, text, _names)):
        raise _without_results(others[0])
    return _the_one(history, matching, candidates, text)


def find_recorded(history: History, text: str) -> Result | Partial:
    """As `find`; results of which only the small tables are here are found too."""
    candidates: list[Result | Partial] = [*history.partial, *history.results]
    return _the_one(history, _matching(candidates, text, _names), candidates, text)


def find_results(history: History, text: str) -> RunResults:
    """Record, metrics and evaluation of the run that `text` names, from its results or from MLflow.

    Raises as `find` does.
    """
    candidates: list[Result | Partial] = [*history.partial, *history.results]
    matching: list[Result | Partial] = [*_matching(history.results, text, _names)]
    matching = matching or [*_matching(history.partial, text, _names)]
    names = [text]
    try:
        recorded = _the_one(history, matching, candidates, text)
    except StoreFailed:
        raise
    except NoSuchRun as error:
        unknown = error
    else:
        if recorded.record:  # at most the large files are not here
            return _results(history, recorded)
        unknown = _without_results(recorded)
        # MLflow knows the experiment that trained; the others share its result
        names += recorded.experiments
    for name in names:
        if found := _results_in_store(history.root, name):
            return found
    raise unknown


def label(result: Result | Partial) -> str:
    """Name, id and experiments of a result, each of which `find` takes."""
    notes = [f"id {result.record.training_id[:8]}"] if result.record else []
    experiments = [name for name in result.experiments if name != result.name]
    if experiments:
        notes.append(f"experiment {', '.join(experiments)}")
    return f"{result.name} ({'; '.join(notes)})" if notes else result.name


def has_store(root: Path) -> bool:
    """Whether the project has an MLflow store that can be asked; opening one would create it."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI")) or (root / "mlflow.db").is_file()


def _matching(
    candidates: Iterable[Candidate], text: str, names: Callable[[Candidate], Iterable[str]]
) -> list[Candidate]:
    """The candidates that have the name `text`; where there are none, a name that starts so."""
    named = [(candidate, list(names(candidate))) for candidate in candidates]
    exactly = [candidate for candidate, of in named if text in of]
    if exactly or not text:
        return exactly
    return [candidate for candidate, of in named if any(name.startswith(text) for name in of)]


def _names(result: Result | Partial) -> Iterator[str]:
    yield result.name
    yield from result.experiments
    if result.record:
        yield result.record.training_id
    else:
        yield from result.commits  # the only id that such a one has


def _names_in_store(run: "StoredRun") -> list[str]:
    tags = run.data.tags
    named = [tags.get(key) for key in ("training_id", "name", "dvc_experiment")]
    return [run.info.run_name, run.info.run_id, *(name for name in named if name)]


def _the_one(history: History, matching: list[Some], candidates: Sequence[Some], text: str) -> Some:
    if not matching and text:
        matching = _matching_in_store(history.root, candidates, text)
    if not matching:
        raise NoSuchRun(_unknown(history, candidates, text))
    if len(matching) > 1:
        listed = _listed([label(result) for result in matching])
        raise UserError(f"{text!r} fits {len(matching)} runs: {listed}; write more of the name")
    return matching[0]


def _matching_in_store(root: Path, candidates: Sequence[Some], text: str) -> list[Some]:
    """The results of the runs in MLflow that `text` names."""
    if not has_store(root):
        return []
    from mnist_lstm.tracking.store import open_store
    from mnist_lstm.tracking.store_errors import TrackingError
    from mnist_lstm.tracking.stored_runs import runs  # seconds, with MLflow and torch

    try:
        store = open_store(root)
        with store.errors():
            named = {
                run.data.tags.get("training_id"): run
                for run in _matching(runs(store), text, _names_in_store)
            }
    except TrackingError as error:
        raise StoreFailed(
            f"no result here is called {text!r}, and MLflow could not be searched: {error}"
        ) from None
    found = [
        result for result in candidates if result.record and result.record.training_id in named
    ]
    here = {result.record.training_id for result in found if result.record}
    if here and named.keys() > here:
        raise _several_in_store(text, named.values())
    if named and not found:
        for run in named.values():
            if is_elsewhere(run.data.tags, root, store.uri):
                made = how_to_get(run.data.tags, root)
                raise NoSuchRun(f"{text!r} is a run in MLflow ({run.info.run_name}), {made}")
        names = ", ".join(str(run.info.run_name) for run in named.values())
        raise NoSuchRun(
            f"{text!r} is a run in MLflow ({names}), but its results are not here: its training "
            "did not finish, or they were deleted"
        )
    return found


def _results(history: History, result: Result | Partial) -> RunResults:
    """A result's record, with metrics and parameters of its latest evaluation."""
    assert result.record
    return RunResults(result.record, history.metrics(result), history.settings(result))


def _results_in_store(root: Path, text: str) -> RunResults | None:
    """The files of the run in MLflow that `text` names; None where MLflow has no such run.

    Raises NoSuchRun where that run has no files, UserError with the candidates where there are
    several, TrackingError.
    """
    if not (text and has_store(root)):
        return None
    from mnist_lstm.tracking.store import open_store
    from mnist_lstm.tracking.stored_runs import artifact, runs  # seconds, with MLflow and torch

    store = open_store(root)
    with store.errors():
        matching = _matching(runs(store), text, _names_in_store)
        if not matching:
            return None
        if len(matching) > 1:
            raise _several_in_store(text, matching)
        (run,) = matching
        paths = ("train/run.json", "evaluate/metrics.json", "evaluate/run.json")
        record, metrics, evaluation = (artifact(store, run, path) for path in paths)
    name = str(run.info.run_name)
    if record is None:
        raise NoSuchRun(
            f"{name} is a run in MLflow, but has no run.json there or here: its training did not "
            "finish, or it was never evaluated"
        )
    return RunResults(
        parse_run(record, f"{name} in MLflow: {paths[0]}"),
        parse_metrics(metrics, f"{name} in MLflow: {paths[1]}") if metrics else {},
        parse_evaluation(evaluation, f"{name} in MLflow: {paths[2]}").params if evaluation else {},
        from_store=True,
    )


def _several_in_store(text: str, fitting: Collection["StoredRun"]) -> UserError:
    listed = ", ".join(f"{each.info.run_name} (id {each.info.run_id[:8]})" for each in fitting)
    return UserError(
        f"{text!r} fits {len(fitting)} runs in MLflow: {listed}; write more of the name"
    )


def _without_results(recorded: Result | Partial) -> NoSuchRun:
    return NoSuchRun(f"{label(recorded)} is recorded, but its results are not here; {FETCH}")


def _unknown(history: History, candidates: Sequence[Result | Partial], text: str) -> str:
    if not candidates and history.partial:
        return f"the results of the recorded runs ({len(history.partial)}) are not here; {FETCH}"
    if not candidates:
        return NO_RUN_YET
    names = list(
        dict.fromkeys(name for each in candidates for name in (each.name, *each.experiments))
    )
    if near := difflib.get_close_matches(text, names, n=3):
        return f"no run is called {text!r}; did you mean {' or '.join(near)}?"
    return f"no run is called {text!r}, and no name starts with that; known runs: {_listed(names)}"


def _listed(names: Collection[str]) -> str:
    """The last LISTED names, those of the latest trainings, and how many more there are."""
    latest = ", ".join(list(names)[-LISTED:])
    more = len(names) - LISTED
    return f"{latest} and {more} more" if more > 0 else latest
