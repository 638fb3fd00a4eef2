"""The checkpoints of a training: written atomically, when they are due, by one process at a time.

Each training has a folder in .checkpoints/, named by its fingerprint. The folder holds
checkpoint.safetensors, the checkpoint before it (previous.safetensors), a lock file that the
training process holds, and a damaged checkpoint, if there was one (checkpoint.damaged).
"""

import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from mnist_lstm import UserError
from mnist_lstm.data.sequences import Batches
from mnist_lstm.files import write_atomically
from mnist_lstm.learning import training_state
from mnist_lstm.learning.optimizer import Averaging
from mnist_lstm.learning.training_state import Damaged, State

SHARE = 0.02  # fraction of a training's time that its checkpoints may take
LONGEST = 5.0  # seconds between checkpoints on a GPU, where saving does not stop the training
LIMIT = 10**9  # bytes that the checkpoints of all trainings may take


class Checkpoint:
    """The checkpoints of the training with one fingerprint, in the folder of that name."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.folder = folder / fingerprint
        self.path = self.folder / "checkpoint.safetensors"
        self.lock = self.folder / "lock"
        self.previous = self.folder / "previous.safetensors"
        self.seconds = 0.0  # spent on saving
        self._last = 0.0  # spent on saving the last checkpoint
        self._since = time.perf_counter()  # start of the last saving, or of this object
        self._is_beside = False  # whether a thread saves while the training continues
        self._writer: threading.Thread | None = None
        self._failed: Exception | None = None

    def save(
        self,
        model: nn.Module,
        optimizer: Averaging,
        batches: Batches,
        about: Mapping[str, Any],
        then: Callable[[], None] = lambda: None,
        *,
        wait: bool = True,
        best: Mapping[str, Tensor] = {},
    ) -> None:
        """Write the present state as the newest checkpoint, then call `then`.

        `about` are JSON values, and `best` the best weights so far, if the training keeps them. If
        `wait` is False and the model is on a GPU, a thread writes while the training continues.
        Raises what went wrong with this checkpoint or the one before it: OSError if it could not be
        written.
        """
        self.finish()
        self._since = time.perf_counter()
        text = json.dumps({**about, "fingerprint": self.fingerprint})
        live = training_state.live(model, optimizer, batches, best)
        device = next(model.parameters()).device
        self._is_beside = device.type == "cuda"
        if not self._is_beside:
            self._write(live, text)
            then()
            return
        copied = torch.cuda.Event()
        tensors = {name: tensor.clone() for name, tensor in live.items()}
        copied.record()

        def write() -> None:
            beside = torch.cuda.Stream(device)
            copied.synchronize()  # first, so that the GPU's earlier work does not count as saving
            try:
                with torch.cuda.stream(beside):
                    self._write(tensors, text)
                then()
            except Exception as error:  # `finish` raises it in the thread that trains
                self._failed = error

        self._writer = threading.Thread(target=write)
        self._writer.start()
        if wait:
            self.finish()

    def _write(self, live: Mapping[str, Tensor], text: str) -> None:
        start = time.perf_counter()
        content = training_state.content(live, text)
        if self.path.exists():
            link = self.previous.with_suffix(".link")
            with suppress(OSError):  # a file system without links keeps one checkpoint
                link.unlink(missing_ok=True)
                os.link(self.path, link)
                link.replace(self.previous)
        write_atomically(self.path, content)
        self._last = time.perf_counter() - start
        self.seconds += self._last

    def finish(self) -> None:
        """Wait for the thread that `save` started. Raises what went wrong in it, as `save` does."""
        if self._writer:
            self._writer.join()
            self._writer = None
        if failed := self._failed:
            self._failed = None
            raise failed

    def is_due(self, seconds: float) -> bool:
        """Whether it is time for a checkpoint, after `seconds` of training.

        A checkpoint is due if all checkpoints together, this one included, take at most SHARE of
        the time. On a GPU, a checkpoint is also due LONGEST seconds after the last one, and never
        while one is written.
        """
        if self._writer and self._writer.is_alive():
            return False
        is_long_ago = time.perf_counter() - self._since > LONGEST
        return (self._is_beside and is_long_ago) or self.seconds + self._last <= SHARE * seconds

    def load(
        self,
        model: nn.Module,
        optimizer: Averaging,
        batches: Batches,
        check: Callable[[State], object] = lambda _: None,
        *,
        best: dict[str, Tensor] | None = None,
    ) -> Mapping[str, Any] | None:
        """Set newly made parts to the newest checkpoint's state. Returns its `about`, or None.

        The best weights in it are put into `best`. Raises Damaged before anything is changed, also
        if `check` raises UserError.
        """
        if not self.path.exists():
            return None
        state = training_state.read(self.path, self.fingerprint)
        if misfit := training_state.misfit(state.tensors, model, optimizer, batches):
            raise Damaged(f"{self.path}: damaged (its {misfit} is not that of this training)")
        try:
            check(state)
        except UserError as error:
            raise Damaged(f"{self.path}: damaged ({str(error).partition(';')[0]})") from None
        training_state.restore(state.tensors, model, optimizer, batches)
        if best is not None:
            best.update(state.best)
        return state.about

    def load_undamaged(
        self,
        model: nn.Module,
        optimizer: Averaging,
        batches: Batches,
        check: Callable[[State], object],
        say: Callable[[str], None],
        *,
        best: dict[str, Tensor] | None = None,
    ) -> Mapping[str, Any] | None:
        """Load the newest checkpoint that is not damaged, as `load` does.

        Set damaged ones aside, and `say` so: a line for each.
        """
        while True:
            try:
                return self.load(model, optimizer, batches, check, best=best)
            except Damaged as error:
                aside = self.set_aside().name
                there = self.path.exists()
                then = "the checkpoint before it is used" if there else "the training starts over"
                say(f"{error}; renamed to {aside}; {then}")

    def step(self) -> int:
        """The step of the newest checkpoint; 0 if there is none, or it is damaged."""
        try:
            step = training_state.read(self.path, self.fingerprint).about.get("step")
        except (OSError, Damaged):
            return 0
        return step if isinstance(step, int) else 0

    def set_aside(self) -> Path:
        """Rename the damaged newest checkpoint, and put the one before in its place.

        Returns the new path of the damaged one. If there was only one, `load` returns None next.
        """
        aside = self.path.replace(self.path.with_suffix(".damaged"))
        with suppress(FileNotFoundError):
            self.previous.replace(self.path)
        return aside

    @contextmanager
    def held(self, waits_for: Callable[[str], None]) -> Iterator[None]:
        """Hold the training's lock within the block.

        If another process holds the lock, call `waits_for` with a description of it, and wait.
        """
        with self._taken(waits_for) as lock:
            since = datetime.now().astimezone().isoformat(" ", "seconds")
            lock.truncate(0)
            lock.write(f"process {os.getpid()} in {Path.cwd()}, since {since}")
            lock.flush()
            for draft in self.folder.glob(".*.draft"):  # left by a training that was killed
                draft.unlink()
            if not self.path.exists():  # it was killed within `set_aside`
                with suppress(FileNotFoundError):
                    self.previous.replace(self.path)
            try:
                yield
            finally:
                if self._writer:
                    self._writer.join()

    def _taken(self, waits_for: Callable[[str], None]) -> TextIO:
        """Open and lock the lock file; closing it, or the end of the process, unlocks it."""
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock = self.lock.open("a+")
            except FileNotFoundError:
                continue  # `remove` has deleted the folder
            if not _locked(lock):
                lock.seek(0)
                waits_for(lock.read() or "a process that has just started")
                fcntl.flock(lock, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock.fileno()), self.lock.stat()):
                    return lock
            lock.close()  # `remove` has deleted the lock file meanwhile

    def remove(self) -> bool:
        """Delete the training's folder unless it is locked. Returns whether the checkpoint is gone.

        Called when DVC has the results, or when space runs out.
        """
        try:
            with self.lock.open("a") as file:
                if not _locked(file):
                    return False
                shutil.rmtree(self.folder)
        except FileNotFoundError:
            return True
        except OSError:
            # NFS keeps a file that is open, here the lock, and with it the folder
            return not self.path.exists()
        return True

    def prune(self, limit: int = LIMIT) -> None:
        """Remove other trainings' folders until all take at most `limit` bytes.

        The oldest is removed first; locked folders stay. A folder or a file that vanishes meanwhile
        counts as removed: another process trains or prunes.
        """
        sizes, changed = dict[Path, int](), dict[Path, float]()
        for folder in self.folder.parent.iterdir():
            with suppress(FileNotFoundError, NotADirectoryError):
                sizes[folder] = sum(map(_size, folder.iterdir()))
                changed[folder] = folder.stat().st_mtime
        total = sum(sizes.values())
        for folder in sorted(changed, key=lambda folder: changed[folder]):
            if total <= limit:
                return
            if folder != self.folder and Checkpoint(folder.parent, folder.name).remove():
                total -= sizes[folder]


def _size(file: Path) -> int:
    """The size of a file in bytes; 0 if it is no longer there."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _locked(file: TextIO) -> bool:
    """Try to lock an open file. Returns False if another process holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
