"""The subcommands of `mnist-lstm`, one file each. `add` defines the arguments, `run` does the work.

Slow modules are imported inside the functions that use them, so that `--help` answers at once.
"""

import argparse
import itertools
import os
import re
import shlex
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_lstm import UserError
from mnist_lstm.views.text_table import escaped, folded, terminal_width

if TYPE_CHECKING:
    from mnist_lstm.runs.history import History
    from mnist_lstm.runs.predictor import Predictor
    from mnist_lstm.tracking.store import Store

RUN = """\
A RUN is the run's name, its training_id, its id or name in MLflow, or the name of its DVC
experiment. The first characters are enough if they fit no other run. `mnist-lstm runs` lists the
runs."""
# the start of a command in a message that works only in the project's folder
ROOTED = re.compile(r"`(?=dvc repro|git checkout (?:results|data/))")
PATIENCE = 5.0  # seconds that a store takes to open before a line says so


class HelpFormatter(argparse.HelpFormatter):
    """Wrap a description to the terminal; paragraphs and indented lists stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        blocks = []
        for kind, group in itertools.groupby(text.splitlines(), key=_kind_of_line):
            lines = list(group)
            if kind == "list":
                blocks += _filled_entries(lines, width)
            else:
                blocks += textwrap.wrap(" ".join(lines), width) if kind else lines
        return "\n".join(blocks)


def _kind_of_line(line: str) -> str:
    if not line:
        return ""
    return "list" if line.startswith(" ") else "paragraph"


def _filled_entries(lines: Sequence[str], width: int) -> list[str]:
    """The entries of a list, `  name   what it is`, whose second column is wrapped."""
    entries: list[tuple[str, list[str]]] = []
    for line in lines:
        name, gap, rest = line.strip().partition("  ")
        if line.startswith("   ") and entries:
            entries[-1][1].append(line.strip())
        else:
            entries.append(
                (f"  {name}{gap}{rest[: len(rest) - len(rest.lstrip())]}", [rest.strip()])
            )
    filled = []
    for start, words in entries:
        after = " " * len(start)
        filled += textwrap.wrap(
            " ".join(words), width, initial_indent=start, subsequent_indent=after
        )
    return filled


def read_history(root: Path, command: str, *, mixture: bool = True) -> "History":
    """Read the history of the project; print a line on stderr for each unreadable file.

    With `mixture`, also print a line if the workspace has the files of several runs.
    """
    from mnist_lstm.runs.history import History

    history = History(root, partial(note, command))
    if mixture and history.mixed:
        note(command, history.mixed)
    return history


def note(command: str, line: str) -> None:
    """Print a line on stderr that does not end the command."""
    print(f"mnist-lstm {command}: {escaped(from_here(line))}", file=sys.stderr, flush=True)


def from_here(line: str) -> str:
    """A message whose commands work in the current folder, too, by a `cd` where they need one."""
    if not ROOTED.search(line):
        return line
    from mnist_lstm.pipeline import stage

    try:
        above = os.path.relpath(stage.root())
    except UserError:
        return line
    return line if above == "." else ROOTED.sub(lambda _: f"`cd {shlex.quote(above)} && ", line)


def say(command: str, what: str) -> None:
    """On a terminal, print what the command is about to do and will take seconds for."""
    if sys.stderr.isatty():
        print(f"mnist-lstm {command}: {what} …", file=sys.stderr, flush=True)


def open_store(root: Path, command: str) -> "Store":
    """MLflow's store of the project; a line on stderr for each thing that was put right in it."""
    say(command, "opening the MLflow store")
    from mnist_lstm.tracking import store  # seconds, with MLflow

    waits = threading.Timer(
        PATIENCE, note, (command, "waiting for the MLflow store: another process may be using it")
    )
    waits.start()
    try:
        opened = store.open_store(root)
    finally:
        waits.cancel()
    for line in opened.changes:
        note(command, line)
    return opened


def show_groups(root: Path, command: str) -> None:
    """Make the parent runs of seeds and of trials in MLflow; a line on stderr if that fails."""
    from mnist_lstm.runs import groups
    from mnist_lstm.runs.history import History
    from mnist_lstm.tracking.parents import Parents
    from mnist_lstm.tracking.store_errors import TrackingError

    try:
        if parents := groups.parents(History(root)):
            shown = Parents(open_store(root, command))
            for each in parents:
                shown.show(each)
    except TrackingError as error:
        note(command, f"{error}; `mnist-lstm sync` adds the parent run later")


def add_recipe(parser: argparse.ArgumentParser, help: str) -> None:
    """Arguments that name a recipe: RECIPE, and -S for other values."""
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        nargs="?",
        type=Path,
        help=f"{help} (default: the project's params.yaml)",
    )
    parser.add_argument(
        "-S",
        "--set-param",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="replace a value of the recipe, for example train.steps=500; may be repeated",
    )


def recipe_file(arguments: argparse.Namespace, root: Path) -> Path:
    """The file of the recipe that the command line names; params.yaml of the project in `root`."""
    return arguments.recipe or in_project(root, "params.yaml")


def settings_of(path: Path, changed: Mapping[str, object] | None = None) -> dict[str, Any]:
    """The parameters of a recipe, with those that are `changed`, by dotted key."""
    from mnist_lstm.pipeline import params

    return params.flatten(params.load(path, changed).model_dump())


def in_project(root: Path, name: str) -> Path:
    """A file of the project in `root`, by its path from the current folder."""
    return Path(os.path.relpath(root / name))


def write_chosen(
    given: Path | None, root: Path, name: str, write: Callable[[Path], object]
) -> Path:
    """Write the file that --out names, or `name` in the project. Returns its path.

    `write` writes a file at a path. Raises UserError if it cannot.
    """
    path = Path(os.path.relpath(given or root / name))
    try:
        write(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name another file with --out") from None
    return path


def changes(settings: Sequence[str]) -> dict[str, object]:
    """Parse texts `KEY=VALUE` into values by key. Raises UserError for any other text."""
    from mnist_lstm.pipeline import strict_yaml

    values = {}
    for setting in settings:
        key, is_there, text = setting.partition("=")
        if not is_there or not key:
            raise UserError(f"-S must be KEY=VALUE, such as train.steps=100, is {setting!r}")
        values[key] = strict_yaml.parse(text, f"-S {key}")
    return values


def add_model(parser: argparse.ArgumentParser) -> None:
    """Arguments that name a model: --run or --model."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--run", metavar="RUN", dest="named", help="use the model of this run")
    which.add_argument(
        "--model", metavar="FILE", type=Path, help="use this model.safetensors, made by train"
    )


def chosen_model(history: "History", arguments: argparse.Namespace, command: str) -> "Predictor":
    """The model that --run or --model names, else the project's; a line on stderr says which."""
    say(command, "looking for the model")
    from mnist_lstm.runs import predictor  # seconds, with PyTorch

    if arguments.named is not None:
        chosen = predictor.of_run(history, arguments.named)
    elif arguments.model is not None:
        chosen = predictor.of_file(history, arguments.model)
    else:
        chosen = predictor.of_project(history)
    print(
        folded(f"mnist-lstm {command}: model: {chosen.source}", terminal_width()), file=sys.stderr
    )
    return chosen


def writable_folder(text: str) -> Path:
    """Parse the path of a folder that is there or can be made, as an argparse type."""
    path = Path(text)
    nearest = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not nearest.is_dir():
        raise argparse.ArgumentTypeError(f"{nearest} is no folder")
    if not os.access(nearest, os.W_OK):
        raise argparse.ArgumentTypeError(f"{nearest} cannot be written to")
    return path


def whole_number(text: str, least: int = 1) -> int:
    """Parse a whole number from 1, or from `least`, as an argparse type."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number from {least}, is {text!r}")
    return int(text)
