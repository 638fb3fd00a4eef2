"""List where MLflow and the results disagree."""

import argparse
import json
from typing import TYPE_CHECKING

from mnist_lstm import UserError
from mnist_lstm.commands import note, open_store, read_history, say
from mnist_lstm.views.text_table import escaped

if TYPE_CHECKING:
    from mnist_lstm.runs.audit import Disagreement

HELP = """\
Compare every result of this project with its run in MLflow, and every run with the results. List
results without a run; curves, parameters and tags that differ; artifacts and models that are
missing; runs whose model belongs to no result; runs that are marked as running although no process
trains them; parent runs of seeds and of searches that are missing or differ; registered models
whose run was made again; and what the registry lacks of champions.jsonl. The results are those in
the workspace, in commits, of DVC experiments and in DVC's cache. Damaged files are named on stderr;
--fix leaves them as they are.

A run that was made by somebody else, on another machine or in another clone, and whose results are
not here, is a note with the command that brings them, and no disagreement. So is an earlier
decision of champions.jsonl that the registry lacks because the results of its model are not here.

Exit code: 0 when all agree (with --fix: when all agree afterwards), 1 when something disagrees or a
damaged file is found outside of commits (a file in a commit cannot be changed), 2 when the MLflow
store cannot be reached."""


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--fix", action="store_true", help="fix what can be fixed")
    parser.add_argument("--json", action="store_true", help="print a JSON array")


def run(arguments: argparse.Namespace) -> int:
    """Compare, print each disagreement and, with --fix, fix it."""
    from mnist_lstm.pipeline import stage
    from mnist_lstm.runs.audit import disagreements
    from mnist_lstm.tracking.credentials import printable

    root = stage.root()
    store, history = open_store(root, "verify"), read_history(root, "verify")
    say("verify", f"comparing {len(history.results)} results with MLflow")
    found: list[dict[str, object]] = []
    for disagreement in disagreements(store, history, root):
        fixed = arguments.fix and _mend(disagreement)
        found += [
            {
                "name": disagreement.name,
                "training_id": disagreement.training_id,
                "what": line,
                "fixed": fixed,
                "note": disagreement.note,
            }
            for line in disagreement.lines
        ]
        if not arguments.json:
            for line in disagreement.lines:
                text = escaped(f"{'note: ' * disagreement.note}{disagreement.name}: {line}")
                print(f"{text}{': fixed' if fixed else ''}", flush=True)
    damaged: list[dict[str, object]] = [
        {"name": None, "training_id": None, "what": line, "fixed": False, "note": False}
        for line in history.damaged  # which `read_history` has printed
    ]
    left = sum(not (entry["fixed"] or entry["note"]) for entry in found)
    notes = sum(bool(entry["note"]) for entry in found)
    found += damaged
    if arguments.json:
        print(json.dumps(found, indent=2))
    elif left:
        hint = "" if arguments.fix else "; `mnist-lstm verify --fix` fixes what can be fixed"
        print(f"{printable(store.uri)}: disagreements: {left}{hint}")
    else:
        print(f"{printable(store.uri)}: agrees with all {len(history.results)} results")
    if notes and not arguments.json:
        print(f"notes about results that are not here: {notes}")
    if damaged and not arguments.json:
        print(f"damaged files, named above: {len(damaged)}")
    return 1 if left or damaged else 0


def _mend(disagreement: "Disagreement") -> bool:
    """Mend what can be; returns whether it was. Raises TrackingError."""
    from mnist_lstm.tracking.store_errors import TrackingError

    if disagreement.mend is None:
        return False
    try:
        disagreement.mend()
    except TrackingError:
        raise
    except UserError as error:
        note("verify", f"{disagreement.name}: left out: {error}")
        return False
    return True
