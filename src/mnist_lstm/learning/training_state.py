"""The state of a training: copied, restored, and as the content of a checkpoint, without pickle."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mnist_lstm import UserError
from mnist_lstm.data.sequences import Batches
from mnist_lstm.learning.optimizer import Averaging

BEST = "best."  # before the names of the best weights so far


class Damaged(UserError):
    """A checkpoint is damaged, or belongs to another training."""


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
    return _on_cpu(live(model, optimizer, batches))


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def live(
    model: nn.Module, optimizer: Averaging, batches: Batches, best: Mapping[str, Tensor] = {}
) -> dict[str, Tensor]:
    """The tensors that `capture` copies, uncopied: the next step changes them in place.

    With them, the `best` weights so far, if the training keeps them.
    """
    moments = optimizer.state_dict()["state"]
    stream, device_rng = batches.state_dict(), _rng_of(model)[0]()
    found = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, moment in moments.items():
        found |= {f"optimizer.{index}.{name}": tensor for name, tensor in moment.items()}
    found |= {"batches.left": stream["left"], "batches.generator": stream["generator"]}
    found |= {"rng": torch.get_rng_state()}
    found |= {f"{BEST}{name}": weight for name, weight in best.items()}
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


def misfit(
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


def content(tensors: Mapping[str, Tensor], about: str) -> bytes:
    """The content of a checkpoint file: tensors on any device and `about`, JSON as a text."""
    copied = _on_cpu(tensors)
    return save(copied, {"checkpoint": about, "sha256": _digest(about, copied)})


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
