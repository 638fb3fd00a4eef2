"""Code that all PyTorch contenders share: the device, waiting for it, the versions."""

import platform

import numpy as np
import torch

from benchmarks.contender import Contender, Skipped, Work


class OnTorch(Contender):
    """A contender on a device of torch."""

    def __init__(self, work: Work) -> None:
        self.device = torch.device(work.device)
        if self.device.type == "cuda":
            if not torch.cuda.is_available():
                raise Skipped(f"torch {torch.__version__} finds no NVIDIA GPU here")
            native = torch.cuda.get_device_capability(self.device) >= (8, 0)
            if work.precision == "bfloat16" and not native:
                raise Skipped("this GPU does not multiply bfloat16 natively")
        torch.set_num_threads(work.threads)
        torch.manual_seed(0)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def memory(self) -> int | None:
        on_gpu = self.device.type == "cuda"
        return torch.cuda.max_memory_reserved(self.device) if on_gpu else None

    def about(self) -> dict[str, str]:
        on_gpu = self.device.type == "cuda"
        return {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "computes on": (
                torch.cuda.get_device_name(self.device)
                if on_gpu
                else torch.backends.cpu.get_cpu_capability()
            ),
        }
