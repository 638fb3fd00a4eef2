"""Update MLflow from the results."""

import argparse
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_lstm import UserError
from mnist_lstm.commands import note, open_store, read_history, say
from mnist_lstm.views.text_table import escaped

if TYPE_CHECKING:
    from mnist_lstm.runs.history import History
    from mnist_lstm.tracking.overview import Overview
    from mnist_lstm.tracking.store import Store

HELP = """\
Compare every result of this project with its run in MLflow, and add what the run lacks, with the
original times. The results are those in the workspace, in commits, of DVC experiments and in DVC's
cache. A run that contradicts its result is deleted and made again. A run that agrees with its
result stays as it is. The seeds of a recipe and the trials of a search get a parent run, with what
all of them show together. A registered model whose run was made again becomes a new version, with
all tags and aliases. Versions, notes and the champion come back from champions.jsonl. The MLflow
store is MLFLOW_TRACKING_URI if that is set, otherwise mlflow.db.

Exit code: 0 when MLflow agrees with all results, 1 when files of a result are damaged or the
registry still lacks the last decision of champions.jsonl, since the results of its model are not
here, 2 when the MLflow store cannot be reached."""


def add(parser: argparse.ArgumentParser) -> None:
    """Define no arguments: the command has none."""


def run(arguments: argparse.Namespace) -> int:
    """Add what MLflow lacks of each result, and print what changed."""
    from mnist_lstm.pipeline import stage
    from mnist_lstm.tracking.credentials import printable
    from mnist_lstm.tracking.overview import of_server
    from mnist_lstm.tracking.stored_runs import runs

    root = stage.root()
    store, history = open_store(root, "sync"), read_history(root, "sync")
    say("sync", f"comparing {len(history.results)} results with MLflow")
    with store.errors():
        overview = of_server(store, runs(store))
    changed, unread = sync_runs(store, history, overview)
    _sync_pruned(store, root, overview)
    _sync_parents(store, history)
    lacks = _sync_versions(store, root)
    same = len(history.results) - changed - unread
    print(f"{printable(store.uri)}: runs updated: {changed}, up to date before: {same}")
    if history.elsewhere:
        print(
            f"recorded results that are not in DVC's cache here: {history.elsewhere}; if a DVC "
            "remote has them, `dvc fetch --all-commits --run-cache` downloads them"
        )
    return 1 if unread or lacks or history.damaged else 0


def sync_runs(store: "Store", history: "History", overview: "Overview | None") -> tuple[int, int]:
    """Add what the runs of the results lack.

    Returns how many runs changed, and how many results have damaged files.
    """
    from mnist_lstm.runs.audit import view
    from mnist_lstm.tracking.projection import project
    from mnist_lstm.tracking.store_errors import TrackingError

    changed = unread = 0
    for result in history.results:
        try:
            lines = project(store, view(history, result), overview)
        except TrackingError:
            raise
        except UserError as error:
            note("sync", f"{result.name}: left out: {error}")
            unread += 1
            continue
        changed += bool(lines)
        _print_fixed(result.name, lines)
    return changed, unread


def _sync_pruned(store: "Store", root: Path, overview: "Overview | None") -> None:
    """Add the runs of pruned trials, of which the checkpoints alone are here."""
    from mnist_lstm.runs.pruned import pruned
    from mnist_lstm.tracking.projection import project_pruned

    for trial in pruned(root):
        lines = project_pruned(store, trial.training, trial.status, trial.why, overview)
        _print_fixed(trial.training.about.name, lines)


def _sync_parents(store: "Store", history: "History") -> None:
    """Add the parent runs of seeds and of trials."""
    from mnist_lstm.runs import groups
    from mnist_lstm.tracking.parents import Parents

    if parents := groups.parents(history):
        shown = Parents(store)
        for parent in parents:
            _print_fixed(parent.name, shown.show(parent))


def _sync_versions(store: "Store", root: Path) -> int:
    """Bring the registered models and champions.jsonl to the same state.

    Returns what the registry still lacks, as a number of lines, without past decisions.
    """
    from mnist_lstm.runs import champions
    from mnist_lstm.tracking import handover, registry

    for each in champions.settle(root, partial(handover.was_made, store)):
        line = f"{champions.FILE} lacks its {each.what} of {each.note['at']}"
        _print_fixed(each.entrant.name, [line])
    for version in registry.outdated(store):
        line = f"{version.title} is of a run that was made again"
        made = registry.renew(store, version)
        print(f"{escaped(f'{version.entrant.name}: {line}')}: it is version {made.number} now")
    decisions = champions.read(root)
    if not (lacks := handover.lacking(store, decisions)):
        return 0
    handover.restore(store, decisions)
    left = handover.lacking(store, decisions)
    for lack in lacks:
        line = f"{lack.decision.entrant.name}: {lack.line}"
        if lack in left:
            note("sync", line)
        else:
            print(f"{escaped(line)}: restored")
    return sum(not lack.is_past for lack in left)


def _print_fixed(name: str, differences: Iterable[str]) -> None:
    for line in differences:
        print(f"{escaped(f'{name}: {line}')}: fixed", flush=True)
