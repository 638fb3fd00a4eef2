"""The device a stage computes on: chosen, named, and made deterministic."""

import ctypes
import os
import warnings
from contextlib import suppress

import torch

from mnist_lstm import UserError

# of glibc's mallopt(3), with 1 GiB for both
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def choose(name: str) -> torch.device:
    """The device of that name; `auto` is CUDA where there is a GPU, else the CPU.

    Computation on it is made deterministic. Raises UserError where it is not there.
    """
    gpus = torch.cuda.device_count()
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        if not gpus:
            raise UserError(
                f"train.device is {name}, but torch {torch.__version__} finds no "
                "NVIDIA GPU here; write auto or cpu"
            )
        if (device.index or 0) >= gpus:
            there = ", ".join(f"cuda:{index}" for index in range(gpus))
            raise UserError(
                f"train.device is {name}, but there is only {there}; write auto or one of these"
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(
            "train.device is mps, but this is no Mac with Apple silicon and macOS 14 "
            "or newer; write auto or cpu"
        )
    _be_deterministic()
    if device.type == "cuda":
        # autocast's copies of weights in bfloat16 are packed anew at each call: an evaluation's
        # 15,128 images take 6 ms with it
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous")
    if device.type == "cpu":
        _keep_freed_memory()
    return device


def describe(device: torch.device) -> str:
    """What kind of device it is, as far as it decides about bits: `cuda NVIDIA H200`."""
    match device.type:
        case "cuda":
            return f"cuda {torch.cuda.get_device_name(device)}"
        case "cpu":
            return f"cpu {torch.backends.cpu.get_cpu_capability()}"
        case kind:
            return kind


def _be_deterministic() -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for it
    # as torch.use_deterministic_algorithms(True), which imports torch._inductor too: 2 s
    torch.set_deterministic_debug_mode("error")
    # else all memory is filled before it is written: 33 ms of a 172 ms CPU step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    # cuDNN's LSTM would otherwise round float32 to TF32's ten bits
    torch.backends.cudnn.allow_tf32 = False


def _keep_freed_memory() -> None:
    """Have the memory that a step frees serve the next one, where the C library is glibc.

    It would go back to the system, which zeroes each page anew: 60 ms of system time a step.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            mallopt(option, 2**30)
