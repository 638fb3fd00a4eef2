"""The clock of a training. At each evaluation it gives a row of timing.csv: time, memory, load."""

import resource
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import torch


@dataclass(frozen=True)
class Timing:
    """A row of timing.csv.

    `time` is UTC in ISO 8601, and never before that of an earlier row. `seconds` is the time spent
    on the training so far, including the time before a kill. `memory_megabytes` is the process's
    peak. `processor_percent` is the load since the previous row; one full core is 100. The GPU's
    values are None on a CPU; its load is also None if no driver reports it.
    """

    step: int
    time: str
    seconds: float
    memory_megabytes: float
    processor_percent: float
    gpu_memory_megabytes: float | None
    gpu_percent: float | None


def now(after: str | None = None) -> str:
    """The time in UTC, ISO 8601, to the millisecond; `after` if that is later."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    return time if after is None else max(after, time, key=datetime.fromisoformat)


class Clock:
    """Measures from its creation on. `seconds` is the time spent on the training before that.

    `time_before` is the time of the last row before that, or of the training's start. No row gets
    an earlier one, even if the machine's clock is set back.
    """

    def __init__(self, device: torch.device, seconds: float, time_before: str) -> None:
        self.device = device
        self.before = seconds
        self._time = time_before
        self.start = self.last_wall = time.perf_counter()
        self.last_processor = time.process_time()

    @property
    def seconds(self) -> float:
        """Seconds spent on the training so far."""
        return self.before + time.perf_counter() - self.start

    @property
    def time(self) -> str:
        """The time, which is never before that of the last row."""
        self._time = now(self._time)
        return self._time

    def read(self, step: int) -> Timing:
        """The row of a step, measured now."""
        wall, processor = time.perf_counter(), time.process_time()
        load = (processor - self.last_processor) / (wall - self.last_wall)
        self.last_wall, self.last_processor = wall, processor
        on_gpu = self.device.type == "cuda"
        return Timing(
            step=step,
            time=self.time,
            seconds=round(self.seconds, 3),
            memory_megabytes=round(_peak_memory_bytes() / 1e6, 1),
            processor_percent=round(100 * load, 1),
            gpu_memory_megabytes=(
                round(torch.cuda.max_memory_allocated(self.device) / 1e6, 1) if on_gpu else None
            ),
            gpu_percent=_gpu_percent(self.device) if on_gpu else None,
        )


def _gpu_percent(device: torch.device) -> float | None:
    try:
        import pynvml
    except ModuleNotFoundError:  # not Linux
        return None
    try:
        return float(torch.cuda.utilization(device))
    except (RuntimeError, pynvml.NVMLError):  # for example, a container without NVML
        return None


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
