"""The work and the answer of a contender of the benchmark: a process that prints one JSON line.

bench.py runs it in the environment that has the contender's library, so this file needs only numpy:
python -m benchmarks.contenders.NAME WORK, with WORK as JSON.
"""

import json
import resource
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

CLASSES = 10
DROPOUT = 0.5
LEARNING_RATE = 0.001


class Skipped(Exception):
    """This contender cannot be measured here. The message is the reason, for the table."""


@dataclass(frozen=True)
class Work:
    """The work of a contender: the sizes of the reference recipe, unless growth is measured.

    A contender trains `warm_up` steps that are not measured, then `blocks` times `steps` steps. It
    evaluates `evaluated` of the test images `evaluations` times; the seconds are scaled up to all
    test images.
    """

    warm_up: int
    blocks: int
    steps: int
    evaluations: int
    evaluated: int
    threads: int
    device: str = "cpu"
    implementation: str = "fused"
    precision: str = "float32"
    batch_size: int = 128
    eval_batch_size: int = 1000
    hidden_size: int = 256
    rows: int = 28
    pixels: int = 28
    train_images: int = 55_000
    test_images: int = 10_000
    validation_images: int = 5_000


class Contender(ABC):
    """A model that can be trained for a few steps and evaluated. Its set-up is not measured.

    `beside` is the number of images that an evaluation reads in addition to the test images.
    """

    beside = 0

    @abstractmethod
    def __init__(self, work: Work) -> None: ...

    @abstractmethod
    def step(self) -> None:
        """Train on one batch."""

    @abstractmethod
    def answer(self, images: int) -> None:
        """Compute the accuracy on this many test images, the first ones."""

    @abstractmethod
    def about(self) -> dict[str, str]:
        """The versions of its libraries, and what it computes on."""

    def wait(self) -> None:  # noqa: B027
        """Wait until everything that was started has been computed."""

    def validate(self) -> float | None:
        """Seconds that the validation images add to an evaluation; None if there are none."""
        return None

    def memory(self) -> int | None:
        """The peak of the GPU's memory in bytes; None on a CPU."""
        return None

    def train(self, steps: int) -> float:
        """Seconds per step, measured over this many steps."""
        self.wait()
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        self.wait()
        return (time.perf_counter() - start) / steps

    def evaluate(self, images: int) -> float:
        """Seconds of an evaluation on this many test images."""
        self.wait()
        start = time.perf_counter()
        self.answer(images)
        self.wait()
        return time.perf_counter() - start


def run(kind: type[Contender]) -> None:
    """Do the work that the command line describes, and print the measurements."""
    work = Work(**json.loads(sys.argv[1]))
    try:
        print(json.dumps(measure(kind, work)))
    except Skipped as reason:
        print(json.dumps({"skipped": str(reason)}))


def measure(kind: type[Contender], work: Work) -> dict[str, Any]:
    """Seconds per step (one value for each block), seconds of an evaluation, and peak memory."""
    contender = kind(work)
    contender.train(work.warm_up)
    steps = [contender.train(work.steps) for _ in range(work.blocks)]
    contender.evaluate(min(work.eval_batch_size, work.evaluated))
    scale = (work.test_images + contender.beside) / (work.evaluated + contender.beside)
    evaluations = [contender.evaluate(work.evaluated) * scale for _ in range(work.evaluations)]
    validations = [contender.validate() for _ in range(work.evaluations)]
    return {
        "step": steps,
        "evaluation": evaluations,
        "validation": [seconds for seconds in validations if seconds is not None],
        "peak_bytes": peak_bytes(),
        "gpu_peak_bytes": contender.memory(),
        "about": contender.about(),
    }


def drawn(images: int, work: Work, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pixels 0–255 (N, T, D) and labels (N,), both uint8."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (images, work.rows, work.pixels), dtype=np.uint8)
    return pixels, random.integers(0, CLASSES, images, dtype=np.uint8)


def peak_bytes() -> int:
    """The peak memory of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
