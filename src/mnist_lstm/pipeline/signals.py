"""Ctrl-C, SIGTERM and SIGHUP end a stage at a safe moment, with one line and no traceback.

A stage's script calls `watch` before its other imports, because torch and mlflow take seconds; a
line on a terminal says so. From then on, signals are noted. Inside `immediate`, a signal raises
Interrupted at once; an earlier signal raises it at the start of the block. Inside a `deferred`
block in it, a signal waits until the end of that block.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import psutil

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
COMMAND = "MNIST_LSTM_COMMAND"  # a variable: the process id of the command that runs dvc
OUTCOMES = "MNIST_LSTM_OUTCOMES"  # a variable: where processes tell their launcher how they ended
GONE = signal.SIGUSR1  # to ourselves: who started us is gone. SIGTERM may be ignored
PARENT_CHECKED = 0.5  # seconds between two checks
SILENT = 2.0  # seconds of imports before a line says so


class Interrupted(BaseException):
    """A signal stopped the work. The message names the signal and says what is kept."""

    def __init__(self, number: int, kept: str) -> None:
        gone = _gone() if number == signal.SIGTERM else None
        cause = f"since {gone} is gone" if gone else f"by {NAMES[signal.Signals(number)]}"
        super().__init__(f"stopped {cause}; {kept}")
        self.exit_code = 128 + number  # the convention of shells


_came: int | None = None  # the first signal that came
_raises = False
_ancestors: list[int] = []  # process ids from our parent up to the `dvc` that started us
_imports: threading.Timer | None = None  # prints a line during slow imports


def watch() -> None:
    """Note signals from now on. The end of the `dvc` that started us counts as a signal.

    So does the end of our launcher (launch.py), and of the command that runs dvc. Signals that are
    ignored, for example after nohup, stay ignored, except Ctrl-C: a shell makes the commands that a
    script runs in the background ignore it, and then `dvc queue kill` and Ctrl-C would stop only
    dvc.
    """
    global _ancestors, _imports
    for number in NAMES:
        if signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGINT:
            signal.signal(number, _note)
    if "DVC_STAGE" in os.environ or OUTCOMES in os.environ:
        _ancestors = _up_to_dvc()
        signal.signal(GONE, lambda _, frame: _note(signal.SIGTERM, frame))
        threading.Thread(target=_end_with_dvc, daemon=True).start()
    if sys.stdout.isatty():
        _imports = threading.Timer(SILENT, print, ["importing torch and the like …"])
        _imports.daemon = True
        _imports.start()


def came() -> int | None:
    """The number of the first signal that came, if one did."""
    return _came


@contextmanager
def immediate() -> Iterator[None]:
    """Raise Interrupted when a signal comes, or if one came before. Call it after the imports."""
    if _imports:
        _imports.cancel()
    with _raising(True):
        yield


@contextmanager
def deferred() -> Iterator[None]:
    """Let a signal wait until the end of the block. The block can ask whether one `came`."""
    with _raising(False):
        yield


def orphaned() -> bool:
    """Whether the `dvc` that started us is gone, the shell between us, or the command above it."""
    return _gone() is not None


def _gone() -> str | None:
    """The program whose end must end us, if it has ended; otherwise None."""
    try:
        if _ancestors and _up_from_us(len(_ancestors)) != _ancestors:
            return "dvc"
    except psutil.NoSuchProcess:
        return "dvc"
    command = os.environ.get(COMMAND)
    return "mnist-lstm" if command and not _is_alive(int(command)) else None


def _is_alive(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def _raising(whether: bool) -> Iterator[None]:
    global _raises
    before, _raises = _raises, whether
    try:
        _raise_if_due()
        yield
        _raises = before
        _raise_if_due()
    finally:
        _raises = before


def _raise_if_due() -> None:
    if _raises and _came:
        raise Interrupted(_came, "earlier results are kept: run it again")


def _note(number: int, _: FrameType | None) -> None:
    global _came
    if _came is None:  # a second signal must not interrupt the handling of the first one
        _came = number
        _raise_if_due()


def _up_to_dvc() -> list[int]:
    """The process id of our parent and, if our parent is the shell in which dvc runs us, of dvc.

    Many shells replace themselves with their only command. dash does not.
    """
    try:
        command = psutil.Process(os.getppid()).cmdline()
        is_shell = command[-2:-1] == ["-c"] and sys.argv[0] in command[-1]
        return _up_from_us(2 if is_shell else 1)
    except psutil.Error:  # the parent has just ended, or may not be inspected
        return _up_from_us(1)


def _up_from_us(generations: int) -> list[int]:
    ids = [os.getppid()]
    while len(ids) < generations:
        ids.append(psutil.Process(ids[-1]).ppid())
    return ids


def _end_with_dvc() -> None:
    while not orphaned():  # polling: Linux and macOS have no common notification
        time.sleep(PARENT_CHECKED)
    os.kill(os.getpid(), GONE)
