"""List the runs, and which of them are the best."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mnist_lstm.commands import count, read_history

if TYPE_CHECKING:
    from mnist_lstm.runs.listing import Run

HELP = """\
Every run of this project, from its results in the workspace, in commits, of DVC experiments and in
DVC's cache, and the trainings that have not ended, from their checkpoints: the earliest first.

  different     the parameters in which it is not the reference recipe: params.yaml at HEAD
  experiments   the DVC experiments that have it; several share one that DVC's cache had already
  state         finished; not evaluated; training or stopped at a step; or results away: this
                machine has the small tables that are in git, not the model

Runs are chosen by their accuracy on the validation images. The accuracy on the test images is only
shown: whoever chooses by it no longer knows how good the chosen one is on images it has not seen.

Exit code: 0 when runs are listed, 1 when there are none, 2 when the command is wrong."""

TITLES = ["run", "experiments", "validation", "test", "steps", "seconds", "device", "state"]

NOTE = """
different: from params.yaml at HEAD. Choose by the accuracy on validation images; that on test
images is only shown, to tell how good the chosen one is."""


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "--sort",
        metavar="ORDER",
        help="started (the default), name, validation (the best first), steps, seconds, or a "
        "parameter such as train.learning_rate",
    )
    parser.add_argument(
        "--best",
        metavar="N",
        type=count,
        help="the N finished runs with the highest accuracy on validation images",
    )
    parser.add_argument(
        "--where",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="runs with that parameter, such as train.learning_rate=0.002; may be given several "
        "times, and all must hold",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON array, with all figures")


def run(arguments: argparse.Namespace) -> int:
    """Read, filter, sort, print."""
    from mnist_lstm.pipeline import stage
    from mnist_lstm.runs import listing
    from mnist_lstm.runs.history import unfinished
    from mnist_lstm.runs.resolve import NO_RUN_YET

    root = stage.root()
    every = listing.runs(read_history(root, "runs"), unfinished(root / ".checkpoints"))
    chosen = found = listing.matching(every, arguments.where) if every else []
    if arguments.best:
        found = listing.best(found, arguments.best)
    if arguments.sort and found:
        found = listing.ordered(found, arguments.sort)
    if arguments.json:
        print(json.dumps([vars(run) for run in found], indent=2, ensure_ascii=False))
    elif found:
        if arguments.best:
            print(f"The best {len(found)} of {len(chosen)}, by accuracy on validation images:\n")
        _print(found)
    elif every:
        what = " and ".join(arguments.where) or "a final accuracy"
        print(f"mnist-lstm runs: none of {len(every)} runs has {what}", file=sys.stderr)
    else:
        print(f"mnist-lstm runs: {NO_RUN_YET}", file=sys.stderr)
    return 0 if found else 1


def _print(found: Sequence["Run"]) -> None:
    from mnist_lstm.runs.listing import assignments
    from mnist_lstm.views.text_table import fits, table, width

    differences = [" ".join(assignments(run.differs)) or "nothing" for run in found]
    rows = [TITLES, *(_cells(run) for run in found)]
    wide = [
        [*row[:2], cell, *row[2:]]
        for row, cell in zip(rows, ["different", *differences], strict=True)
    ]
    if fits(wide, width()):
        print(*table(wide, width(), right="   rrrr"), sep="\n")
    else:
        title, *lines = table(rows, width(), right="  rrrr")
        print(title)
        for line, cell in zip(lines, differences, strict=True):
            print(line, f"  different: {cell}", sep="\n")
    print(NOTE)
    for run in found:
        if others := [name for name in run.experiments if name != run.name]:
            print(f"{', '.join(others)}: the result of {run.name}, which was trained once.")
    if len({run.dataset for run in found}) > 1:
        print("These are several data sets, and accuracies compare within one: --where dataset=…")


def _cells(run: "Run") -> list[str]:
    return [
        run.name,
        ", ".join(run.experiments),
        _percent(run.validation_accuracy),
        _percent(run.test_accuracy),
        "" if run.steps is None else f"{run.steps:,}",
        "" if run.seconds is None else f"{run.seconds:,.1f}",
        run.device or "",
        run.state,
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"
