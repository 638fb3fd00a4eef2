"""Fingerprints of trainings, and their checkpoints: written atomically, read without pickle.

Each training has a folder in .checkpoints/, named by its fingerprint. The folder holds
checkpoint.safetensors, the checkpoint before it (previous.safetensors), a lock file that the
training process holds, and a damaged checkpoint, if there was one (checkpoint.damaged).
"""

import ast
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mnist_lstm import UserError
from mnist_lstm.data.sequences import Batches
from mnist_lstm.files import write_atomically
from mnist_lstm.learning.optimizer import Averaging

SHARE = 0.02  # fraction of a training's time that its checkpoints may take
LONGEST = 5.0  # seconds between checkpoints on a GPU, where saving does not stop the training
LIMIT = 10**9  # bytes that the checkpoints of all trainings may take
BEST = "best."  # before the names of the best weights so far


class Damaged(UserError):
    """A checkpoint is damaged, or belongs to another training."""


def fingerprint(facts: Mapping[str, object]) -> str:
    """The hex digest of everything that determines the weights of a training.

    `facts` are JSON values: parameters, digests of data and code, versions, device, threads.
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def code_digest(sources: Sequence[Path]) -> str:
    """The hex digest of Python files' syntax trees: comments and line breaks do not change it.

    Of a file that is no Python, such as one with a byte that is not UTF-8, it covers the bytes.
    """
    trees = [_tree(source.read_bytes()) for source in sources]
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()


def _tree(code: bytes) -> str:
    try:
        return ast.dump(ast.parse(code))
    except (SyntaxError, ValueError):  # it is not imported: Python would refuse it
        return repr(code)


@dataclass(frozen=True)
class State:
    """The state of a training: `tensors` by name, on the CPU, and `about`, JSON values."""

    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]

    @property
    def best(self) -> dict[str, Tensor]:
        """The best weights so far, by name; empty if the training keeps none."""
        return _below(BEST, self.tensors)


def capture(model: nn.Module, optimizer: Averaging, batches: Batches) -> dict[str, Tensor]:
    """Copy everything that the rest of a training depends on to the CPU.

    The copy includes the states of torch's random generators. It does not include the optimizer's
    settings, since the fingerprint covers them.
    """
    return _on_cpu(_live(model, optimizer, batches))


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def _live(model: nn.Module, optimizer: Averaging, batches: Batches) -> dict[str, Tensor]:
    """The tensors that `capture` copies, uncopied: the next step changes them in place."""
    moments = optimizer.state_dict()["state"]
    stream, device_rng = batches.state_dict(), _rng_of(model)[0]()
    found = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, moment in moments.items():
        found |= {f"optimizer.{index}.{name}": tensor for name, tensor in moment.items()}
    found |= {"batches.left": stream["left"], "batches.generator": stream["generator"]}
    found |= {"rng": torch.get_rng_state()}
    return found | ({} if device_rng is None else {"device_rng": device_rng})


def restore(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    optimizer: Averaging,
    batches: Batches,
) -> None:
    """Set newly made parts to the state that `capture` copied."""
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below("optimizer.", tensors).items():
        index, _, moment = name.partition(".")
        moments.setdefault(int(index), {})[moment] = tensor
    model.load_state_dict(_below("model.", tensors))
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
    batches.load_state_dict(_below("batches.", tensors))
    torch.set_rng_state(tensors["rng"])
    _rng_of(model)[1](tensors.get("device_rng"))


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _misfit(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    optimizer: Averaging,
    batches: Batches,
) -> str | None:
    """The name of the first tensor that does not fit this training; None if all fit."""
    expected = {name: _kind(tensor) for name, tensor in capture(model, optimizer, batches).items()}
    if any(name.startswith("optimizer.") for name in tensors):  # the optimizer has made a step
        moments, counts = optimizer.kept()
        for index, weight in enumerate(optimizer.param_groups[0]["params"]):
            if counts:
                expected[f"optimizer.{index}.step"] = (torch.float32, torch.Size())
            for moment in moments:
                expected[f"optimizer.{index}.{moment}"] = _kind(weight)
    if any(name.startswith(BEST) for name in tensors):
        weights = model.state_dict().items()
        expected |= {f"{BEST}{name}": _kind(weight) for name, weight in weights}
    left = tensors.get("batches.left", torch.empty(0))
    expected["batches.left"] = (torch.int64, torch.Size([left.numel()]))
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or expected.get(name) != _kind(tensors[name]):
            return name
    if not bool(((left >= 0) & (left < batches.num_images)).all()):
        return "batches.left"
    for name in ("batches.generator", "rng"):
        try:
            torch.Generator().set_state(tensors[name])
        except RuntimeError:
            return name
    return None


def _kind(tensor: Tensor) -> tuple[torch.dtype, torch.Size]:
    return tensor.dtype, tensor.shape


def _rng_of(model: nn.Module) -> tuple[Callable[[], Tensor | None], Callable[[Any], None]]:
    """Functions that get and set the generator state of a model's device; no-ops for the CPU."""
    device = next(model.parameters()).device
    match device.type:
        case "cuda":
            return (
                lambda: torch.cuda.get_rng_state(device),
                lambda state: torch.cuda.set_rng_state(state, device),
            )
        case "mps":
            return torch.mps.get_rng_state, torch.mps.set_rng_state
        case _:
            return lambda: None, lambda _: None


def read(path: Path, fingerprint: str) -> State:
    """Read a checkpoint of the training with that fingerprint.

    Raises Damaged for any other file, and OSError if there is none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata, tensors = file.metadata() or {}, file.get_tensors()
    except SafetensorError as error:
        raise Damaged(f"{path}: damaged ({' '.join(str(error).split())})") from None
    text = metadata.get("checkpoint", "")
    if metadata.get("sha256") != _digest(text, tensors):
        raise Damaged(f"{path}: damaged (its SHA-256 is not the one it was saved with)")
    try:
        about = dict(json.loads(text))
        whose = about.pop("fingerprint")
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Damaged(f"{path}: damaged (it does not say whose it is)") from None
    if whose != fingerprint:
        raise Damaged(f"{path}: the checkpoint of another training")
    return State(tensors, about)


def _digest(about: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
        live = _live(model, optimizer, batches)
        live |= {f"{BEST}{name}": weight for name, weight in best.items()}
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
        tensors = _on_cpu(live)
        content = save(tensors, {"checkpoint": text, "sha256": _digest(text, tensors)})
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
        state = read(self.path, self.fingerprint)
        if misfit := _misfit(state.tensors, model, optimizer, batches):
            raise Damaged(f"{self.path}: damaged (its {misfit} is not that of this training)")
        try:
            check(state)
        except UserError as error:
            raise Damaged(f"{self.path}: damaged ({str(error).partition(';')[0]})") from None
        restore(state.tensors, model, optimizer, batches)
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
            step = read(self.path, self.fingerprint).about.get("step")
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
            if os.fstat(lock.fileno()).st_nlink:
                return lock
            lock.close()  # `remove` has deleted the lock file meanwhile

    def remove(self) -> bool:
        """Delete the training's folder, unless it is locked. Returns whether the folder is gone.

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
            return False
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
