"""The subcommands of `mnist-lstm`, one file each. `add` defines the arguments, `run` does the work.

Slow modules are imported inside the functions that use them, so that `--help` answers at once.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_lstm.views.text_table import escaped

if TYPE_CHECKING:
    from mnist_lstm.runs.history import History
    from mnist_lstm.tracking.store import Store

RUN = """\
A RUN is the run's name, its training_id, its id in MLflow, or the name of its DVC experiment. The
first characters are enough if they fit no other run. `mnist-lstm runs` lists the runs."""


def read_history(root: Path, command: str, *, mixture: bool = True) -> "History":
    """Read the history of the project; print a line on stderr for each unreadable file.

    With `mixture`, also print a line if the workspace has the files of several runs.
    """
    from mnist_lstm.runs.history import History

    def note(line: str) -> None:
        print(f"mnist-lstm {command}: {escaped(line)}", file=sys.stderr)

    history = History(root, note)
    if mixture and history.mixed:
        note(history.mixed)
    return history


def open_store(root: Path, command: str) -> "Store":
    """MLflow's store of the project; a line on stderr for each thing that was put right in it."""
    from mnist_lstm.tracking import store  # seconds, with MLflow

    opened = store.open_store(root)
    for line in opened.changes:
        print(f"mnist-lstm {command}: {line}", file=sys.stderr)
    return opened


def count(text: str) -> int:
    """Parse a whole number from 1, as an argparse type."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, is {text!r}")
    return int(text)
