"""List where MLflow and the results disagree."""

import argparse
import json

from mnist_lstm.commands import read_history

HELP = """\
Every result of this project is compared with its run in MLflow, and every run with the results:
results without a run, curves, parameters or tags that differ, artifacts and models that are not
there, runs whose model no result has, and runs marked as running that nothing trains. Results are
those in the workspace, in commits, of DVC experiments and in DVC's cache.

Exit code: 0 when all agrees (with --fix: when all does by now), 1 when something disagrees, 2 when
the store cannot be reached."""


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--fix", action="store_true", help="mend what can be mended")
    parser.add_argument("--json", action="store_true", help="print a JSON array")


def run(arguments: argparse.Namespace) -> int:
    """Compare, print and, if asked to, mend."""
    from mnist_lstm.pipeline import stage
    from mnist_lstm.runs.audit import disagreements
    from mnist_lstm.tracking.store import open_store, printable

    root = stage.root()
    store, history = open_store(root), read_history(root, "verify")
    found = []
    for disagreement in disagreements(store, history, root):
        mended = arguments.fix and disagreement.mend is not None
        if mended and disagreement.mend:
            disagreement.mend()
        found += [
            {
                "name": disagreement.name,
                "training_id": disagreement.training_id,
                "what": line,
                "mended": mended,
            }
            for line in disagreement.lines
        ]
        if not arguments.json:
            for line in disagreement.lines:
                print(f"{disagreement.name}: {line}{': mended' if mended else ''}", flush=True)
    left = sum(not entry["mended"] for entry in found)
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif left:
        hint = "" if arguments.fix else "; `mnist-lstm verify --fix` mends what can be mended"
        print(f"{printable(store.uri)}: disagreements: {left}{hint}")
    else:
        print(f"{printable(store.uri)}: agrees with all results, {len(history.results)} of them")
    return 1 if left else 0
