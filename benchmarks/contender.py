"""What each contender of the benchmark is given and answers: a process that prints one JSON line.

Run by bench.py, in whichever environment has the contender's library, so that nothing but numpy is
needed here: python -m benchmarks.contenders.NAME WORK, with WORK as JSON.
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
    """This contender does not compete here; the message is the reason, for the table."""


@dataclass(frozen=True)
class Work:
    """What is to be done: the sizes of the reference recipe, unless growth is measured.

    A contender trains `warm_up` steps unmeasured, then `blocks` times `steps`. It evaluates
    `evaluated` of the test images `blocks` times; the seconds are scaled up to all of them.
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
    """A model that can be trained a few steps and evaluated; its set-up is not measured.

    `beside` is how many images an evaluation reads besides those to test with.
    """

    beside = 0

    @abstractmethod
    def __init__(self, work: Work) -> None: ...

    @abstractmethod
    def step(self) -> None:
        """Train on one batch."""

    @abstractmethod
    def answer(self, images: int) -> None:
        """Find the accuracy on the first so many test images."""

    @abstractmethod
    def about(self) -> dict[str, str]:
        """The versions of what it computes with, and on what."""

    def wait(self) -> None:  # noqa: B027
        """Return when all that was started has been computed."""

    def validate(self) -> float | None:
        """Seconds that the validation figure adds to an evaluation; None where there is none."""
        return None

    def memory(self) -> int | None:
        """The peak of the GPU's memory in bytes; None on a processor."""
        return None

    def train(self, steps: int) -> float:
        """The seconds that so many steps took, a step."""
        self.wait()
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        self.wait()
        return (time.perf_counter() - start) / steps

    def evaluate(self, images: int) -> float:
        """The seconds that an evaluation on so many test images took."""
        self.wait()
        start = time.perf_counter()
        self.answer(images)
        self.wait()
        return time.perf_counter() - start


def run(kind: type[Contender]) -> None:
    """Do the work that the command line names, and print what was measured."""
    work = Work(**json.loads(sys.argv[1]))
    try:
        print(json.dumps(measure(kind, work)))
    except Skipped as reason:
        print(json.dumps({"skipped": str(reason)}))


def measure(kind: type[Contender], work: Work) -> dict[str, Any]:
    """Seconds a step (one figure a block), an evaluation on all test images, and peak memory."""
    contender = kind(work)
    contender.train(work.warm_up)
    steps = [contender.train(work.steps) for _ in range(work.blocks)]
    contender.evaluate(min(work.eval_batch_size, work.evaluated))
    scale = (work.test_images + contender.beside) / (work.evaluated + contender.beside)
    evaluations = [contender.evaluate(work.evaluated) * scale for _ in range(work.evaluations)]
    return {
        "step": steps,
        "evaluation": evaluations,
        "validation": contender.validate(),
        "peak_bytes": peak_bytes(),
        "gpu_peak_bytes": contender.memory(),
        "about": contender.about(),
    }


def drawn(images: int, work: Work, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pixels 0–255 (N, T, D) and labels (N,), both uint8: for timing, any image will do."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (images, work.rows, work.pixels), dtype=np.uint8)
    return pixels, random.integers(0, CLASSES, images, dtype=np.uint8)


def peak_bytes() -> int:
    """The most memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
