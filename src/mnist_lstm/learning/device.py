"""Choose the device that a stage computes on, describe it, and make it deterministic."""

import ctypes
import os
import warnings
from contextlib import suppress

import torch

from mnist_lstm import UserError

# options of glibc's mallopt(3); both are set to 1 GiB
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def choose(name: str) -> torch.device:
    """The device of that name. `auto` is an NVIDIA GPU if there is one, otherwise the CPU.

    Computation on it is made deterministic. Raises UserError if the machine has no such device.
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
        if device.index is not None:  # new streams and Triton's kernels are on the current GPU
            torch.cuda.set_device(device)
        # autocast copies the weights to bfloat16, and cuDNN packs the copies at each call: with it,
        # an evaluation of 15,128 images takes 6 ms
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous")
    if device.type == "cpu":
        _keep_freed_memory()
    return device


def describe(device: torch.device) -> str:
    """The kind of device, as far as it influences the weights: `cuda NVIDIA H200`."""
    match device.type:
        case "cuda":
            return f"cuda {torch.cuda.get_device_name(device)}"
        case "cpu":
            return f"cpu {torch.backends.cpu.get_cpu_capability()}"
        case kind:
            return kind


def in_words(description: str) -> str:
    """What `describe` returns, for a sentence: `the GPU (NVIDIA H200)`."""
    kind, _, name = description.partition(" ")
    noun = {"cpu": "the CPU", "cuda": "the GPU", "mps": "the Mac's GPU"}[kind]
    return f"{noun} ({name})" if name else noun


def _be_deterministic() -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it to be so
    # the same as torch.use_deterministic_algorithms(True), which takes 2 s: it imports _inductor
    torch.set_deterministic_debug_mode("error")
    # by default torch fills all memory before it is written: 33 ms of a 172 ms CPU step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    # cuDNN's LSTM would otherwise round float32 to TF32's ten bits
    torch.backends.cudnn.allow_tf32 = False


def _keep_freed_memory() -> None:
    """Keep the memory that a step frees for the next step, if the C library is glibc.

    By default it goes back to the system, which then zeroes each page again: 60 ms of system time
    per step.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            mallopt(option, 2**30)
