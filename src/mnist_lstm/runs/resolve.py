"""The run that somebody means: by its name, its id, a DVC experiment, or the start of one."""

import difflib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from mnist_lstm import UserError
from mnist_lstm.runs.history import History, Result

NO_RUN_YET = "no run yet: `dvc repro` makes one"
FETCH = (
    "`dvc repro` makes those of params.yaml, `dvc fetch --all-commits --run-cache` brings all that "
    "a DVC remote has"
)
SHOWN = 10  # names in a message


class NoSuchRun(UserError):
    """No result here is called so."""


def find(history: History, text: str, *, partial: bool = False) -> Result:
    """The one result that `text` is a name, an id or an experiment of, or the start of one.

    What is called so exactly comes before what only starts so. With `partial`, results of which
    only the small tables are here are found too. MLflow's store, which takes seconds to open, is
    asked for its ids and for names that people gave there where nothing else has that name.

    Raises NoSuchRun where there is none, and UserError with the candidates where there are several.
    """
    candidates = [*history.results, *(history.partial if partial else [])]
    found = _called(candidates, text)
    if not found and (others := _called(history.partial, text)):
        raise NoSuchRun(f"{label(others[0])} is recorded, but its results are not here; {FETCH}")
    if not found and text and candidates:
        found = _called_in_store(history.root, candidates, text)
    if not found:
        raise NoSuchRun(_unknown(history, candidates, text))
    if len(found) > 1:
        listed = _listed([label(result) for result in found])
        raise UserError(f"{text!r} may be any of {len(found)} runs: {listed}; write more of one")
    return found[0]


def label(result: Result) -> str:
    """A result in words that `find` takes, one of them at least: name, id and experiments."""
    about = result.about
    notes = [f"id {about['training_id'][:8]}"] if "training_id" in about else []
    experiments = [name for name in result.experiments if name != about["name"]]
    if experiments:
        notes.append(f"experiment {', '.join(experiments)}")
    return f"{about['name']} ({'; '.join(notes)})" if notes else about["name"]


def _called(candidates: Sequence[Result], text: str) -> list[Result]:
    exactly = [result for result in candidates if text in _names(result)]
    if exactly or not text:
        return exactly
    return [
        result for result in candidates if any(name.startswith(text) for name in _names(result))
    ]


def _names(result: Result) -> Iterator[str]:
    yield result.about["name"]
    yield from result.experiments
    if "training_id" in result.about:
        yield result.about["training_id"]
    else:
        yield from result.commits  # the only id that a partial one has


def _called_in_store(root: Path, candidates: Sequence[Result], text: str) -> list[Result]:
    """Those whose MLflow run has the name, or an id that starts so."""
    if not (os.environ.get("MLFLOW_TRACKING_URI") or (root / "mlflow.db").is_file()):
        return []
    from mnist_lstm.tracking.projection import runs  # seconds, with MLflow and torch
    from mnist_lstm.tracking.store import TrackingError, open_store

    try:
        store = open_store(root)
        with store.errors():
            named = {
                run.data.tags.get("training_id"): run.info.run_name
                for run in runs(store)
                if text == run.info.run_name or run.info.run_id.startswith(text)
            }
    except TrackingError as error:
        raise NoSuchRun(f"no result here is called {text!r}, and in MLflow: {error}") from None
    found = [result for result in candidates if result.about.get("training_id") in named]
    if named and not found:
        names = ", ".join(map(str, named.values()))
        raise NoSuchRun(
            f"{text!r} is a run in MLflow ({names}), but has no results here: it did not "
            "finish, or they went"
        )
    return found


def _unknown(history: History, candidates: Sequence[Result], text: str) -> str:
    if not candidates and history.partial:
        return f"no run's results are here, and {len(history.partial)} are recorded; {FETCH}"
    if not candidates:
        return NO_RUN_YET
    names = list(dict.fromkeys(name for result in candidates for name in _shown(result)))
    if near := difflib.get_close_matches(text, names, n=3):
        return f"no run is called {text!r}; did you mean {' or '.join(near)}?"
    return f"no run is called {text!r}, and none starts so; there are {_listed(names)}"


def _shown(result: Result) -> Iterator[str]:
    yield result.about["name"]
    yield from result.experiments


def _listed(names: Collection[str]) -> str:
    first = ", ".join(list(names)[-SHOWN:])
    more = len(names) - SHOWN
    return f"{first} and {more} more" if more > 0 else first
