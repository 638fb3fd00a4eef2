"""Trainings that have not ended: what their checkpoints tell, and whether a process is at work."""

import fcntl
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_lstm.pipeline.result_files import Row


@dataclass(frozen=True)
class Unfinished:
    """A training at its last checkpoint. `about` is what its run.json has so far."""

    about: Mapping[str, Any]
    rows: Sequence[Row]  # of curve.csv, so far
    step: int
    seconds: float
    at_work: bool


def unfinished(checkpoints: Path) -> list[Unfinished]:
    """Those in the folder .checkpoints, the earliest first.

    Their headers alone are read, so that it costs neither torch nor the tensors. One that is no
    checkpoint is left out: the training that meets it says so.
    """
    found = []
    for path in checkpoints.glob("*/checkpoint.safetensors"):
        try:
            state = json.loads(_header(path)["__metadata__"]["checkpoint"])
            record = state["record"]
            about, rows = record["about"], record["rows"]
            at_work = is_held(path.with_name("lock"))
            found.append(Unfinished(about, rows, state["step"], state["seconds"], at_work))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(found, key=lambda one: str(one.about["started"]))


def is_held(lock: Path) -> bool:
    """Whether a process has the lock of a training, the file `lock` beside its checkpoint."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _header(path: Path) -> Any:
    """That of a safetensors file: its length in eight bytes, the lowest first, and JSON."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError(f"{path}: no safetensors")
        return json.loads(file.read(size))
