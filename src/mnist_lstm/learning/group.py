"""Train one model on several processes: each computes on some images of a batch.

All processes have the same weights, optimizer, shuffles and random state, and draw the masks and
the distortions of the whole batch. Each computes the gradients of its own images, and these are
summed. So the masks do not depend on the number of processes, and the gradients depend on it only
through the order in which floating-point numbers are added.

B batch, P processes
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor, nn

from mnist_lstm import UserError
from mnist_lstm.files import write_atomically
from mnist_lstm.learning import training_state
from mnist_lstm.learning.build import Learner
from mnist_lstm.learning.checkpoint import Checkpoint

PATIENCE = timedelta(minutes=30)  # for the first process, which evaluates and saves alone
KINDS = ("cpu", "cuda")  # of devices that several processes can train on


class Parted(Exception):
    """Another process of the training has ended, or cannot be reached. The message says why."""


def size() -> int:
    """The number of processes that train together: WORLD_SIZE, as torchrun sets it; else 1."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


def device_of(name: str) -> str:
    """The name of the device for this process: one of several takes a GPU of its own.

    Raises UserError if several processes are to share one GPU, since NCCL refuses that.
    """
    gpus = torch.cuda.device_count()
    if size() == 1 or not gpus or not (name == "auto" or name.startswith("cuda")):
        return name
    if ":" in name:
        raise UserError(
            f"params.yaml: train.device must be auto or cuda, is {name}: each of the "
            f"{size()} processes takes a GPU of its own"
        )
    number = int(os.environ["LOCAL_RANK"])
    if number >= gpus:
        raise UserError(
            f"params.yaml: train.processes must be at most the number of GPUs here, {gpus}: each "
            "process takes one"
        )
    return f"cuda:{number}"


def leads_host() -> bool:
    """Whether this is the first process of the group on its host."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


class Group:
    """The processes that train one model together. This one is number `rank`, from 0."""

    def __init__(self, rank: int, processes: int, device: torch.device) -> None:
        self.rank, self.processes, self.device = rank, processes, device
        self.stops = 0  # why a process asked all to stop after the last step; 0 if none did

    @property
    def is_first(self) -> bool:
        """Whether this process evaluates, saves and prints."""
        return self.rank == 0

    def part(self, images: int) -> slice:
        """The images of a batch that this process computes."""
        return slice(
            images * self.rank // self.processes, images * (self.rank + 1) // self.processes
        )

    def sum_gradients(self, model: nn.Module, stop: int) -> None:
        """Replace each gradient by its sum over all processes, in one message.

        If one process asks to `stop`, for a reason other than 0, all of them have the reason in
        `stops` after the same step: of several reasons the largest. Raises Parted.
        """
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        asked = torch.tensor([float(stop)], device=self.device)
        flat = torch.cat([asked, *(gradient.flatten() for gradient in gradients)])
        with _parting():
            dist.all_reduce(flat)
        asked, *sums = flat.split([1, *(gradient.numel() for gradient in gradients)])
        for gradient, total in zip(gradients, sums, strict=True):
            gradient.copy_(total.view_as(gradient))
        self.stops = self.largest(stop)[0] if asked.item() else 0

    def share(self, tensors: Mapping[str, Tensor] | None, source: int = 0) -> dict[str, Tensor]:
        """Send the `tensors` of process `source` to all processes. Returns them, on the CPU.

        Raises Parted.
        """
        content = save(dict(tensors)) if tensors is not None and self.rank == source else b""
        length = torch.tensor([len(content)], device=self.device)
        with _parting():
            dist.broadcast(length, source)
        sent = torch.frombuffer(bytearray(content or int(length)), dtype=torch.uint8)
        sent = sent.to(self.device)
        with _parting():
            dist.broadcast(sent, source)
        found: dict[str, Tensor] = load(sent.cpu().numpy().tobytes())
        return found

    def largest(self, value: int) -> tuple[int, int]:
        """The largest `value` of all processes, and the first process that has it.

        Raises Parted.
        """
        values = torch.zeros(self.processes, dtype=torch.int64, device=self.device)
        values[self.rank] = value
        with _parting():
            dist.all_reduce(values)
        return int(values.max()), int(values.argmax())

    def bring_newest(self, saved: Checkpoint) -> None:
        """Bring the newest checkpoint of any host to the host of the first process.

        Only the first process saves. After a restart, another host may have its checkpoint. Raises
        Parted.
        """
        step, source = self.largest(saved.step() if leads_host() else 0)
        if step and source:
            content = saved.path.read_bytes() if self.rank == source else b""
            file = torch.frombuffer(bytearray(content or 1), dtype=torch.uint8)
            found = self.share({"file": file}, source)["file"]
            if self.is_first:
                write_atomically(saved.path, found.numpy().tobytes())

    def share_state(self, learner: Learner, step: int = 0, *, ended: bool = False) -> int:
        """Set the learner of each process to the state of the first, which is at `step`.

        From here on, each process computes its part of a batch. Returns that step, or a step after
        the last one if the first process says that the training has `ended`. Raises Parted.
        """
        about = {"about": torch.tensor([step, ended])}
        tensors = self.share(training_state.capture(*learner.parts) | about)
        step, ended = tensors.pop("about").tolist()
        training_state.restore(tensors, *learner.parts)
        learner.model.part = self.part
        return sys.maxsize if ended else step

    def help(
        self, saved: Checkpoint, learner: Learner, fit_from: Callable[[int], Iterable[object]]
    ) -> None:
        """Compute a part of each batch, from the first process's state to the last step.

        `fit_from` is `fit` as a function of its `start`. Returns early if a process asks all to
        stop. Raises Parted.
        """
        self.bring_newest(saved)
        for _ in fit_from(self.share_state(learner)):
            if self.stops:
                return


@contextmanager
def _parting() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch has no class of its own for gloo's
        why = str(error).strip().partition("\n")[0]
        raise Parted(f"another process of this training cannot be reached: {why}") from error


@contextmanager
def joined(device: torch.device) -> Iterator[Group | None]:
    """Join the processes that torchrun started; None if this one trains alone.

    Raises UserError if several processes cannot train on the device, and Parted.
    """
    if size() == 1:
        yield None
        return
    if device.type not in KINDS:
        raise UserError(
            f"params.yaml: train.processes must be 1 on {device.type}; several processes train on "
            "CPUs or on NVIDIA GPUs"
        )
    backend = "nccl" if device.type == "cuda" else "gloo"
    with _parting():
        dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()
