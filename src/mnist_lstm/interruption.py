"""Ctrl-C, SIGTERM and SIGHUP end a stage at a moment that suits it, with a line and no traceback.

A stage's script calls `watch` before its other imports, of which torch and mlflow take seconds,
which is said on a terminal.
From then on a signal is noted; it raises Interrupted inside of `immediate` and at its start, and
inside of that, not within `deferred`, but at its end.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
PARENT_CHECKED = 0.5  # seconds between two looks
SILENT = 2.0  # seconds of imports, then they are told of


class Interrupted(BaseException):
    """A signal came. The text says by what the work was stopped and what is kept of it."""

    def __init__(self, number: int, kept: str) -> None:
        cause = "since dvc is gone" if orphaned() else f"by {NAMES[signal.Signals(number)]}"
        super().__init__(f"stopped {cause}; {kept}")
        self.exit_code = 128 + number  # as shells have it


_came: int | None = None  # the first signal that did
_raises = False
_parent: int | None = None  # the `dvc` that started us
_imports: threading.Timer | None = None  # tells of them


def watch() -> None:
    """Note signals from here on, and take the end of the `dvc` that started us for one.

    What is ignored, say after nohup, stays ignored.
    """
    global _parent, _imports
    for number in NAMES:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _note)
    if "DVC_STAGE" in os.environ:
        _parent = os.getppid()
        threading.Thread(target=_end_with_parent, daemon=True).start()
    if sys.stdout.isatty():
        _imports = threading.Timer(SILENT, print, ["importing torch and the like …"])
        _imports.daemon = True
        _imports.start()


def came() -> int | None:
    """The number of the first signal that came, if one did."""
    return _came


@contextmanager
def immediate() -> Iterator[None]:
    """Raise Interrupted when a signal comes, or where one came before. The imports are over."""
    if _imports:
        _imports.cancel()
    with _raising(True):
        yield


@contextmanager
def deferred() -> Iterator[None]:
    """Let a signal wait until the end of the block, which may ask whether one `came`."""
    with _raising(False):
        yield


def orphaned() -> bool:
    """Whether the `dvc` that started us is gone."""
    return _parent is not None and os.getppid() != _parent


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
    if _came is None:  # a second one must not break into the work of the first
        _came = number
        _raise_if_due()


def _end_with_parent() -> None:
    while not orphaned():  # no way of being told is there on both Linux and macOS
        time.sleep(PARENT_CHECKED)
    os.kill(os.getpid(), signal.SIGTERM)
