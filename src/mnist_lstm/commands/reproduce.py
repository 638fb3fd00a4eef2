"""Repeat a run from its commit, and check whether the weights are the same."""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mnist_lstm import UserError
from mnist_lstm.commands import RUN, note, read_history
from mnist_lstm.runs.reproduction import TOLERANCE
from mnist_lstm.views.text_table import escaped

if TYPE_CHECKING:
    from mnist_lstm.runs.reproduction import ReproductionOutcome, RunResults
    from mnist_lstm.runs.worktree import ForeignCode, Scratch

HELP = f"""\
Restore the run's code, parameters and data in a temporary worktree, which has its own MLflow store
and DVC cache. The code is the run's commit, with the changes that were not committed. Then `dvc
repro` trains and evaluates there, with the run's number of threads. Nothing in your project
changes. It takes as long as the run took. The packages are those that are installed now. If their
versions, the device or the data differ from those of the run, the command names the differences.

The command needs the repository and the run's record: its results or, if they are gone, its files
in MLflow. If only MLflow has the record, its patch is shown first, and runs only if you agree; so
is a commit that neither HEAD nor a branch here has. Raw data comes from DVC's cache or data/raw;
otherwise fetch gets it from a mirror.

{RUN}

Exit code: 0 when the weights are the same, bit for bit; 1 when they differ, but the accuracies on
validation and test images each differ by no more than the tolerance; 3 when the accuracies differ
by more, the data differs, or the pipeline failed; 2 when a RUN fits no run or several, the run
cannot be restored, or it has code that you do not trust; 130 when it was stopped."""

# lines of stages and dvc that are wrong in a temporary worktree: they are not printed
ADVICE = re.compile(
    r"To track the changes|\tgit add|To enable auto staging|\tdvc config core.autostage|"
    r"Use `dvc push`|see the run in MLflow: |compare: `dvc |(Generat|Updat)ing lock file"
)
CODES = {"identical": 0, "close": 1, "different": 3}


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("which", metavar="RUN", help="the run to repeat")
    parser.add_argument(
        "--tolerance",
        metavar="FRACTION",
        type=_fraction,
        default=TOLERANCE,
        help="if the weights differ, the accuracies may differ by this fraction of the images "
        f"(default: {TOLERANCE}; five seeds of the reference recipe differ by less)",
    )
    parser.add_argument(
        "--trust-patch",
        action="store_true",
        help="run the code of a run that only MLflow has without asking first: docs/runs.md",
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the temporary worktree, and print its path"
    )
    parser.add_argument(
        "--json", action="store_true", help="print only a JSON object, not dvc's output"
    )


def run(arguments: argparse.Namespace) -> int:
    """Restore the run, repeat it, compare the results, print the outcome."""
    from mnist_lstm.pipeline import stage
    from mnist_lstm.runs.resolve import find_results
    from mnist_lstm.runs.worktree import scratch

    root = stage.root()
    then = find_results(read_history(root, "reproduce"), arguments.which)

    def report(line: str) -> None:
        if line and not arguments.json and not ADVICE.match(line):
            print(line, flush=True)

    kept = None
    try:
        with scratch(root, keep=arguments.keep) as place:
            kept = place if arguments.keep else None
            place.check_out(then.record)
            if then.from_store and (foreign := place.foreign_code(then.record)).kinds:
                _warn(then.record.name, foreign)
                if not arguments.trust_patch:
                    _ask(then.record.name, foreign)
            now, outcome = _reproduce(then, place, arguments.tolerance, report)
            place.has_outcome = True
            _print(arguments, then, now, outcome, kept)
    except KeyboardInterrupt:
        left = "the temporary worktree is gone, and nothing here has changed"
        note("reproduce", f"stopped; {_kept(kept) if kept else left}")
        return 130
    return CODES[outcome.outcome]


def _reproduce(
    then: "RunResults", place: "Scratch", tolerance: float, report: Callable[[str], object]
) -> tuple["RunResults | None", "ReproductionOutcome"]:
    """Make the run again from its commit, which is checked out.

    Returns its results, None where it failed, and the outcome.
    """
    from mnist_lstm.pipeline.result_files import read_metrics, read_run
    from mnist_lstm.runs.reproduction import ReproductionOutcome, RunResults, compare

    record = then.record
    place.apply(record)
    place.restore_params(record, then.evaluation_params)
    has_data = place.restore_data(record)
    patched = ", with its patch" if record.patch else ""
    name = escaped(record.name)
    report(f"{name}: commit {(record.commit or '')[:10]}{patched}, in {place.project}")
    code, lines = place.run(record.threads, report, has_data=has_data)
    if code:
        return None, ReproductionOutcome(
            "different", [f"the pipeline failed there: {_failure(lines)}"]
        )
    results = place.project / "results"
    now = RunResults(
        read_run(results / "train" / "run.json"),
        read_metrics(results / "evaluate" / "metrics.json"),
    )
    return now, compare(then, now, tolerance)


def _warn(name: str, foreign: "ForeignCode") -> None:
    print(
        f"{escaped(name)} is in MLflow alone, with {' and '.join(foreign.kinds)}: code of whoever "
        "wrote it, which will run as you. It changes, by lines added and removed:",
        *map(_visible, foreign.changes),
        sep="\n",
        file=sys.stderr,
    )


def _ask(name: str, foreign: "ForeignCode") -> None:
    """Raise UserError unless somebody at a terminal says that the code may run."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError(
            f"{name}: its code runs only if somebody at a terminal agrees, or with --trust-patch; "
            f"read it first: {' and '.join(foreign.places)}"
        )
    while True:
        print("Run it? (yes, no, or diff to read it) ", end="", file=sys.stderr, flush=True)
        match sys.stdin.readline().strip().lower():
            case "y" | "yes":
                return
            case "d" | "diff":
                print(_visible(foreign.diff), file=sys.stderr)
            case _:
                raise UserError(f"{name}: nobody agreed to its code, so nothing ran")


def _visible(text: str) -> str:
    """Text whose control characters a terminal shows instead of obeying them."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1]
        for character in text
    )


def _failure(lines: Sequence[str]) -> str:
    """The line with which a stage failed; otherwise dvc's last line."""
    started = [found[1] for line in lines if (found := re.match(r"Running stage '(\w+)'", line))]
    stages = [line for line in lines if line.startswith(tuple(f"{name}: " for name in started))]
    errors = [line for line in lines if line.startswith("ERROR: ")]
    return (stages or errors or lines or ["dvc said nothing"])[-1]


def _print(
    arguments: argparse.Namespace,
    then: "RunResults",
    now: "RunResults | None",
    outcome: "ReproductionOutcome",
    kept: "Scratch | None",
) -> None:
    from mnist_lstm.runs.reproduction import rows
    from mnist_lstm.views.text_table import table, terminal_width

    record = then.record
    if arguments.json:
        answer = {
            "name": record.name,
            "training_id": record.training_id,
            "commit": record.commit,
            "dirty": bool(record.patch),
            "outcome": outcome.outcome,
            "tolerance": arguments.tolerance,
            "reasons": outcome.reasons,
            "then": _as_json(then),
            "now": _as_json(now) if now else None,
            "kept": str(kept.project) if kept else None,
        }
        print(json.dumps(answer, indent=2))
        return
    if now:
        print("", *table(rows(then, now), terminal_width()), sep="\n")
    print(f"\n{escaped(record.name)}: {_sentence(outcome, arguments.tolerance)}")
    for reason in outcome.reasons:
        print(f"  {escaped(reason)}")
    if kept:
        print(_kept(kept))


def _kept(place: "Scratch") -> str:
    """Where a worktree is that was kept, and how to remove it."""
    code, folder = shlex.quote(str(place.folder / "code")), shlex.quote(str(place.folder))
    removed = f"git worktree remove --force {code} && rm -r {folder}"
    return f"kept: {place.project} (`{removed}` removes it)"


def _as_json(results: "RunResults") -> dict[str, Any]:
    keys = ("model_sha256", "data", "device", "precision", "threads", "versions")
    record = results.record.as_json()
    return {key: record[key] for key in keys} | {"metrics": results.metrics}


def _sentence(outcome: "ReproductionOutcome", tolerance: float) -> str:
    match outcome.outcome:
        case "identical":
            return "reproduced: the weights are the same, bit for bit"
        case "close":
            return f"the weights differ; accuracies agree within the tolerance of {tolerance:.2%}"
        case _:
            return "not reproduced"


def _fraction(text: str) -> float:
    """Parse a number from 0 to 1, as an argparse type."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a fraction from 0 to 1, is {text!r}")
    return value
