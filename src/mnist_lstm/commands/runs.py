"""List the runs, or the best of them."""

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mnist_lstm.commands import note, read_history, whole_number

if TYPE_CHECKING:
    from mnist_lstm.runs.listing import Run

HELP = """\
List the runs of this project, the earliest first: the results in the workspace, in commits, of DVC
experiments and in DVC's cache, and the trainings that have not ended, from their checkpoints.

  different  the parameters that differ from the reference recipe: params.yaml at HEAD
  state      finished; not evaluated; training, stopped, or pruned by a search, at a step; or tables
             only: the model and the pictures are not on this machine

Results whose model is not here are only counted, except those of HEAD and of the workspace; --all
lists them all.

Choose runs by their accuracy on the validation images. The accuracy on the test images is only
shown: if you choose by it, it no longer measures how good the chosen run is on unseen images.

Exit code: 0 when runs are listed, 1 when there are none, 2 when the command is wrong."""

TITLES = ["run", "validation", "test", "steps", "seconds", "device", "state"]

NOTE = """
Choose a run by its accuracy on the validation images. The accuracy on the test
images only measures how good the chosen run is.
Next: `mnist-lstm compare RUN RUN`"""


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "--sort",
        metavar="ORDER",
        help="sort by started (the default), name, validation (the best first), steps, seconds, or "
        "a parameter such as train.learning_rate",
    )
    parser.add_argument(
        "--best",
        metavar="N",
        type=whole_number,
        help="of each data set, list only the N finished runs with the highest accuracy on "
        "validation images",
    )
    parser.add_argument(
        "--where",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="list only runs with this value, such as train.learning_rate=0.002; if the option is "
        "repeated, a run must have all the values",
    )
    parser.add_argument(
        "--all", action="store_true", help="also list the results whose model is not here"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON array with all values of all runs, also of those whose model is not "
        "here; with --best, only of those that --best lists",
    )


def run(arguments: argparse.Namespace) -> int:
    """Read, filter, sort, print."""
    from mnist_lstm.pipeline import stage
    from mnist_lstm.runs import listing, pruned
    from mnist_lstm.runs.resolve import NO_RUN_YET
    from mnist_lstm.runs.unfinished import unfinished

    root = stage.root()
    history = read_history(root, "runs")
    every = listing.runs(history, unfinished(root / ".checkpoints"), pruned.reasons(root))
    matching = listing.matching(every, arguments.where) if every else []
    found = matching
    if not (arguments.all or (arguments.json and not arguments.best)):
        found = listing.at_hand(found, history)
    hidden = len(matching) - len(found)
    number, caution = len(found), listing.caution(found)  # of all that the best were among
    if arguments.best:
        found = listing.best(found, arguments.best)
    if arguments.sort and found:
        found = listing.ordered(found, arguments.sort)
    if arguments.json:
        print(json.dumps([vars(run) for run in found], indent=2))
    elif found:
        if arguments.best:
            several = len({run.dataset for run in found}) > 1
            best = f"{arguments.best} of each data set," if several else f"{len(found)}"
            print(f"The best {best} of {number} runs, by accuracy on validation images:\n")
        _print(found, hidden, caution)
    elif every:
        evaluated = ["a final accuracy"] if arguments.best else []
        what = " and ".join([*arguments.where, *evaluated])
        note("runs", f"none of {len(every)} runs has {what}")
    else:
        note("runs", NO_RUN_YET)
    return 0 if found else 1


def _print(found: Sequence["Run"], hidden: int, caution: str) -> None:
    from mnist_lstm.pipeline.params import assignments
    from mnist_lstm.runs import listing
    from mnist_lstm.views.text_table import escaped, folded, table, terminal_width

    users = {run.user for run in found}
    title, *lines = table([TITLES, *map(_cells, found)], terminal_width(), right=" rrrr")
    print(title)
    for run, line in zip(found, lines, strict=True):
        print(line)
        different = " ".join(assignments(run.differs)) or "nothing"
        experiments = ", ".join(name for name in run.experiments if name != run.name)
        notes = {"different": different} | ({"experiments": experiments} if experiments else {})
        if len(users) > 1 and run.user:
            notes["made by"] = f"{run.user} on {run.host}"
        for name, text in notes.items():
            indented = f"  {name}: {escaped(text)}"
            print(folded(indented, terminal_width()))
    if hidden:
        print(f"\n{hidden} more in git's history, without their models: --all")
    can_be_promoted = any(run.state == listing.FINISHED for run in found)
    print(f"{NOTE}{', or `mnist-lstm promote RUN`' if can_be_promoted else ''}.")
    for run in found:
        if others := [name for name in run.experiments if name != run.name]:
            print(f"{', '.join(others)}: the same result as {run.name}, which was trained once.")
    if caution:
        print(caution)


def _cells(run: "Run") -> list[str]:
    return [
        run.name,
        _percent(run.validation_accuracy),
        _percent(run.test_accuracy),
        "" if run.steps is None else f"{run.steps:,}",
        "" if run.seconds is None else f"{run.seconds:,.1f}",
        run.device or "",
        run.state,
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"
