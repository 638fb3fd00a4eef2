"""The trainings that have not ended, from their checkpoints."""

import fcntl
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_lstm import UserError
from mnist_lstm.pipeline.result_files import Progress, Row, RunRecord, Training

# what a file that is no checkpoint raises, RecursionError included
_NO_STATE = UserError, OSError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError


@dataclass(frozen=True)
class Unfinished:
    """A training that has not ended, at its last checkpoint; `at_work`: a process trains it."""

    progress: Progress
    at_work: bool

    @property
    def training(self) -> Training:
        """Its record and its tables so far."""
        return self.progress.record

    @property
    def record(self) -> RunRecord:
        """Its record."""
        return self.training.about

    @property
    def rows(self) -> Sequence[Row]:
        """The rows of curve.csv so far."""
        return self.training.rows


def unfinished(checkpoints: Path) -> list[Unfinished]:
    """The trainings with a checkpoint in the folder .checkpoints, the earliest first.

    Only the headers of the checkpoints are read, which needs neither torch nor the tensors. A file
    that is no checkpoint is left out: the training that meets it reports it.
    """
    found = []
    for path in checkpoints.glob("*/checkpoint.safetensors"):
        try:
            state = json.loads(_header(path)["__metadata__"]["checkpoint"])
            progress = Progress.from_state(state, str(path))
        except _NO_STATE:
            continue
        at_work = is_held(path.with_name("lock"))
        found.append(Unfinished(progress, at_work))
    return sorted(found, key=lambda training: training.record.started)


def is_held(lock: Path) -> bool:
    """Whether a process holds the lock `lock`, a file such as that beside a checkpoint.

    One that may not be looked at counts as held: it is another user's.
    """
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return False
    return False


def _header(path: Path) -> Any:
    """The header of a safetensors file: its length in eight bytes, the lowest first, and JSON."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError(f"{path}: no safetensors")
        return json.loads(file.read(size))
