"""Bring MLflow into line with the results."""

import argparse

from mnist_lstm.commands import read_history

HELP = """\
Every result of this project is compared with its run in MLflow, and what the run lacks is added,
with the times it had: results in the workspace, in commits, of DVC experiments and in DVC's cache.
A run that says something else than its result is deleted and made anew. Where all is in line,
nothing changes. The store is mlflow.db, or that of MLFLOW_TRACKING_URI.

Exit code: 0 when all is in line, 2 when the store cannot be reached."""


def add(parser: argparse.ArgumentParser) -> None:
    """It takes no arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Project every result, and print what changed."""
    from mnist_lstm.pipeline import stage
    from mnist_lstm.runs.audit import view
    from mnist_lstm.tracking.projection import project
    from mnist_lstm.tracking.store import open_store, printable

    root = stage.root()
    store, history = open_store(root), read_history(root, "sync")
    if store.moved_from:
        print(f"the project was moved: its artifacts are no longer in {store.moved_from}")
    changed = 0
    for result in history.results:
        lines = project(store, view(history, result))
        changed += bool(lines)
        for line in lines:
            print(f"{result.name}: {line}: mended", flush=True)
    same = len(history.results) - changed
    print(f"{printable(store.uri)}: runs brought into line: {changed}, in line before: {same}")
    if history.elsewhere:
        print(
            f"recorded results that are not in DVC's cache here: {history.elsewhere}; where a DVC "
            "remote has them, `dvc fetch --all-commits --run-cache` brings them"
        )
    return 0
