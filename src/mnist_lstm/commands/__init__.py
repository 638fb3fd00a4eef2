"""The subcommands of `mnist-lstm`, a file each: `add` its arguments, `run` it.

What takes long to import is imported where it is used, so that `--help` answers at once.
"""

import argparse

RUN = """\
A RUN is a name, a training_id or MLflow's id of it, a DVC experiment, or the start of one of these
that no other run has. `mnist-lstm runs` lists them."""


def count(text: str) -> int:
    """A whole number from 1, as argparse wants it."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, is {text!r}")
    return int(text)
