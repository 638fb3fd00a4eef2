"""Prepare a process for work: it may have no usable output, or its user may have no name."""

import gc
import getpass
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

OUTPUT = "standard output"  # how its errors name it
# objects between two runs of the garbage collector. With Python's number, a sixth of the time in
# which torch and MLflow are imported goes into looking for garbage among the new modules
COLLECTED_EVERY = 10_000


def prepare() -> None:
    """Make output accept any character and name itself in errors, and give the user a name.

    A closed output is replaced by one that nobody reads. DVC and MLflow ask for the user's name,
    which a user id in a container may not have. Garbage is collected less often, because that makes
    the imports faster: call this before them.
    """
    gc.set_threshold(COLLECTED_EVERY)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            _discard(number)
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    if (stdout := sys.__stdout__) and stdout is sys.stdout:
        stdout.flush()
        sys.stdout = _Output(
            io.BufferedWriter(io.FileIO(1, "w", closefd=False)),
            encoding=stdout.encoding,
            errors="backslashreplace",
            line_buffering=True,  # by default, a pipe gets blocks of 8 KiB
        )
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        os.environ["LOGNAME"] = f"uid_{os.getuid()}"


def discard_output() -> None:
    """Discard everything that is still to be written, after the output has failed."""
    _discard(sys.stdout.fileno())


def _discard(number: int) -> None:
    opened = os.open(os.devnull, os.O_WRONLY)
    os.dup2(opened, number)
    if opened != number:
        os.close(opened)
    os.set_inheritable(number, True)


class _Output(io.TextIOWrapper):
    """Text output whose name is in its errors; the system's errors do not have it.

    The name is added out here, not where bytes are written: a signal's exception that came after
    the bytes, but before the buffer knew, would have them written a second time.
    """

    def write(self, text: str) -> int:
        with _named():
            return super().write(text)

    def flush(self) -> None:
        with _named():
            super().flush()


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = OUTPUT
        raise
