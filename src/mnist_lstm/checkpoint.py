"""What makes two trainings the same, and the state of one: saved whole, loaded without pickle."""

import ast
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mnist_lstm.files import write_atomically
from mnist_lstm.sequences import Batches


def fingerprint(facts: Mapping[str, object]) -> str:
    """Hex digest of all that decides about the weights; equal for trainings that are the same.

    `facts` holds what JSON can: parameters, digests of data and code, versions, device, threads.
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def code_digest(sources: Sequence[Path]) -> str:
    """Hex digest of the syntax trees of Python files: a comment or a line break changes nothing."""
    trees = [ast.dump(ast.parse(source.read_text(encoding="utf-8"))) for source in sources]
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()


def capture(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> dict[str, Any]:
    """All that the rest of a training depends on, torch's random generators included."""
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "batches": batches.state_dict(),
        "rng": torch.get_rng_state(),
        "device_rng": _rng_of(model)[0](),
    }


def restore(
    state: Mapping[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
) -> None:
    """Bring everything to where `capture` saw it."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    batches.load_state_dict(state["batches"])
    torch.set_rng_state(state["rng"])
    _rng_of(model)[1](state["device_rng"])


def _rng_of(model: nn.Module) -> tuple[Callable[[], Tensor | None], Callable[[Any], None]]:
    """How to get and set the random generator of a model's device, where that is not the CPU."""
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


class Checkpoint:
    """The state of the training of one fingerprint, in a folder of that name."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.folder = folder / fingerprint
        self.path = self.folder / "checkpoint.pt"

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the state: tensors, numbers, text, and dicts and lists of them."""
        write_atomically(self.path, lambda draft: torch.save(dict(state), draft))

    def load(self) -> dict[str, Any] | None:
        """The state that was saved last, on the CPU; None where there is none."""
        if not self.path.is_file():
            return None
        state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        return state

    def remove(self) -> None:
        """Forget the training: DVC holds its results now."""
        shutil.rmtree(self.folder, ignore_errors=True)
