"""Row sequences: split, save and load them, and draw batches.

N images, T rows as time steps, D pixels a row, B batch
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mnist_lstm import UserError
from mnist_lstm.files import write_atomically

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Sequences:
    """Row sequences with their labels.

    `pixels` (N, T, D) are uint8, 0–255; `labels` (N,) are uint8 below `num_classes`. `dataset` is
    the data set's name, and `preprocess` has the parameters of the preprocess stage.
    """

    pixels: Tensor
    labels: Tensor
    num_classes: int
    dataset: str
    preprocess: Mapping[str, int | None]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Sequences":
        """A copy with the tensors on a device."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def save(self, path: Path) -> None:
        """Write a safetensors file atomically."""
        tensors = {"pixels": self.pixels.contiguous(), "labels": self.labels.contiguous()}
        about = {
            "num_classes": self.num_classes,
            "dataset": self.dataset,
            "preprocess": self.preprocess,
        }
        # one key only: safetensors writes several keys in an order that varies
        write_atomically(path, save(tensors, {"sequences": json.dumps(about)}))

    @staticmethod
    def load(path: Path) -> "Sequences":
        """Read a file that `save` wrote. Raises UserError for any other file."""
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["sequences"])
                found = Sequences(file.get_tensor("pixels"), file.get_tensor("labels"), **about)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; `dvc repro preprocess` makes it") from None
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            reason: str | None = " ".join(str(error).split())
        else:
            reason = found._mistake()
            if reason is None:
                return found
        raise UserError(
            f"{path}: not row sequences as preprocess writes them ({reason}); "
            "`dvc repro --force preprocess` makes it anew"
        )

    def _mistake(self) -> str | None:
        for name, type_ in (("num_classes", int), ("dataset", str), ("preprocess", dict)):
            if type(value := getattr(self, name)) is not type_:
                return f"{name} must be {type_.__name__}, is {type(value).__name__}"
        for name, tensor, rank in (("pixels", self.pixels, 3), ("labels", self.labels, 1)):
            if tensor.dtype != torch.uint8 or tensor.dim() != rank or tensor.numel() == 0:
                kind = f"{tensor.dtype} of shape {tuple(tensor.shape)}"
                return f"{name} must be uint8 with {rank} dimensions and not empty, is {kind}"
        if len(self.pixels) != len(self.labels):
            return f"{len(self.pixels)} images but {len(self.labels)} labels"
        if self.num_classes > 256:
            return f"{self.num_classes} classes are more than uint8 labels can name"
        if (highest := int(self.labels.max())) >= self.num_classes:
            return f"label {highest} is beyond the {self.num_classes} classes"
        return None


def split(
    images: np.ndarray,
    labels: np.ndarray,
    validation_size: int,
    generator: torch.Generator | None,
    train_size: int | None = None,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Split images (N, T, D) with their labels (N,) into those to train and to validate on.

    Without a generator, the first `validation_size` images are those to validate on, as in the
    reference; with a generator, a random sample. `train_size` keeps that many of the others: the
    first ones, or a random sample, which a larger `train_size` contains. Both parts keep the order
    of the images.
    """
    order = (
        torch.arange(len(images))
        if generator is None
        else torch.randperm(len(images), generator=generator)
    )
    parts = (order[validation_size:][:train_size], order[:validation_size])
    train, validation = (part.sort().values.numpy() for part in parts)
    return (images[train], labels[train]), (images[validation], labels[validation])


class Batches(Iterator[Tensor]):
    """An endless iterator over batches of indices, (B,) int64 on `device`.

    Each epoch has a new shuffle, made on the CPU so that it is the same for all devices. As in the
    reference, a batch continues across an epoch's end: the rest of one shuffle, then the next.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.generator = generator
        self.left = torch.empty(0, dtype=torch.int64, device=device)  # rest of the present shuffle

    def __next__(self) -> Tensor:
        while len(self.left) < self.batch_size:
            shuffle = torch.randperm(self.num_images, generator=self.generator)
            self.left = torch.cat([self.left, shuffle.to(self.left.device)])
        batch, self.left = self.left.split([self.batch_size, len(self.left) - self.batch_size])
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The position in the stream, for `load_state_dict`."""
        return {"left": self.left.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the position of another stream of the same sizes."""
        self.left = state["left"].to(self.left.device)
        self.generator.set_state(state["generator"])
