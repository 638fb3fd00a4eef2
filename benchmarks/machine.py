"""Describe the machine of the benchmark and what its processor can do."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from mnist_lstm.pipeline.company import cores

CPUINFO = Path("/proc/cpuinfo")


def threads() -> int:
    """The number of threads of each contender: OMP_NUM_THREADS, or all cores that it may use."""
    return int(os.environ.get("OMP_NUM_THREADS") or cores())


def processor() -> str:
    """The processor's name as the system reports it."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string")
    found = re.search(r"(?m)^model name\s*: (.+)$", _cpuinfo())
    return found[1] if found else platform.machine()


def memory_gigabytes() -> float:
    """The memory of the whole machine, in gigabytes (10⁹ bytes)."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16; others emulate it, which is slower."""
    if sys.platform == "darwin":
        return _sysctl("hw.optional.arm.FEAT_BF16") == "1"
    words = set(_cpuinfo().split())
    return bool(words & {"avx512_bf16", "amx_bf16"} or {"bf16", "asimd"} <= words)


def describe() -> str:
    """Describe the machine: `AMD EPYC (x86_64), 2 cores, 24 GB of memory, Linux`."""
    return (
        f"{processor()} ({platform.machine()}), {cores()} cores, "
        f"{memory_gigabytes():.0f} GB of memory, {platform.system()}"
    )


def _cpuinfo() -> str:
    return CPUINFO.read_text() if CPUINFO.exists() else ""


def _sysctl(name: str) -> str:
    command = ["sysctl", "-n", name]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
