"""The subcommands of `mnist-lstm`, a file each: `add` its arguments, `run` it.

Modules that take long to import are imported where they are used, so that `--help` answers at once.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnist_lstm.runs.history import History

RUN = """\
A RUN is a name, a training_id or MLflow's id of it, a DVC experiment, or the start of one of these
that no other run has. `mnist-lstm runs` lists them."""


def read_history(root: Path, command: str) -> "History":
    """The history of the project; a line on stderr for each record that cannot be read."""
    from mnist_lstm.runs.history import History

    history = History(root)
    for line in history.unreadable:
        print(f"mnist-lstm {command}: left out: {line}", file=sys.stderr)
    return history


def count(text: str) -> int:
    """A whole number from 1, as argparse wants it."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, is {text!r}")
    return int(text)
