"""The number format of the LSTM layers: float32, or bfloat16 where that works.

Weights, losses and the optimizer are float32 in both. In bfloat16 on a GPU, the layers train as a
wavefront if that works, otherwise by cuDNN.
"""

import importlib.util
from collections.abc import Sequence

import torch

from mnist_lstm import UserError
from mnist_lstm.learning.model import RowLSTM


def choose(name: str, model: RowLSTM) -> str:
    """Resolve a precision's name for a model on its device.

    `auto` means float32 on a processor, so that a recipe gives the same figures on all of them. On
    a GPU that multiplies bfloat16 natively, it means bfloat16. Raises UserError if bfloat16 is
    asked for and does not work.
    """
    if name == "auto":
        return "bfloat16" if _is_native(model) and works(model) else "float32"
    if name == "bfloat16" and not works(model):
        raise UserError(
            f"train.precision is {name}, but torch {torch.__version__} has no "
            f"{model.config['implementation']} {model.config.get('cell', 'lstm').upper()} in "
            "bfloat16 for this device; write auto or float32"
        )
    return name


def works(model: RowLSTM) -> bool:
    """Whether a model can train in bfloat16 on its device. Trains on one image to find out.

    Draws random numbers.
    """
    before, model.precision = model.precision, "bfloat16"
    size = (1, model.config.get("num_rows", 1), model.config["input_size"])
    pixels = torch.zeros(size, device=model.head.weight.device)
    try:
        model(pixels).sum().backward()
    except torch.OutOfMemoryError:  # which says nothing about the precision
        raise
    except RuntimeError:  # oneDNN: could not create a primitive descriptor
        return False
    finally:
        model.precision = before
        model.zero_grad()
    return True


def is_wavefront(precision: str, model: RowLSTM, batch: Sequence[int]) -> bool:
    """Whether to train a model on its device as a wavefront. Runs a small one to find out.

    `batch` is the shape of a batch (B, T, D).
    """
    device = model.head.weight.device
    if precision != "bfloat16" or device.type != "cuda" or not model.can_be_a_wavefront:
        return False
    if importlib.util.find_spec("triton") is None:  # Triton exists only for Linux
        return False
    from mnist_lstm.learning import wavefront

    images, rows, pixels = batch
    steps, inputs = (pixels, rows) if model.reads == "columns" else (rows, pixels)
    reaches = wavefront.reaches(
        stacks=1 + (model.reads == "both"),
        layers=model.config["num_layers"],
        inputs=model.window * inputs,
        hidden=model.config["hidden_size"],
        steps=steps,
        batch=images,
    )
    return reaches and wavefront.works(device)


def _is_native(model: RowLSTM) -> bool:
    """Whether a model is on a GPU that multiplies bfloat16 natively."""
    device = model.head.weight.device
    # Ampere
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
