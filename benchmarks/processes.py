"""Measure a training step on the CPU by the number of processes and threads.

Run: python -m benchmarks.processes [--seconds N] [--rounds N]
Prints the table of docs/machines.md: milliseconds of a step in float32, the median of all rounds.
The images are random. The measurements take turns, so that a change of the machine's speed hits all
of them. Nothing else should run on the machine.
"""

import argparse
import os
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

WARM_UP = 5  # steps
ENDLESS = 10**9  # steps
MODEL = {"num_layers": 2, "dropout": 0.5, "forget_bias": 1.0, "implementation": "fused"}
IMAGES = (4096, 28, 28)  # their number, rows and pixels


class Size(NamedTuple):
    """What is trained, always with two layers: the first is the reference."""

    units: int
    batch_size: int


SIZES = (Size(256, 128), Size(512, 256))
ARMS = ((1, 1), (1, 2), (2, 1))  # processes, threads of each


def main() -> None:
    """Measure each size with each number of processes and threads, in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", metavar="N", type=float, default=8)
    parser.add_argument("--rounds", metavar="N", type=int, default=3)
    parser.add_argument("--train", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(Size(*arguments.train), arguments.seconds)
        return
    found: dict[tuple[Size, tuple[int, int]], list[float]] = {}
    for _ in range(arguments.rounds):
        for size in SIZES:
            for processes, threads in ARMS:
                step = measured(size, processes, threads, arguments.seconds)
                found.setdefault((size, (processes, threads)), []).append(step)
    names = [f"{p} process{'es' * (p > 1)}, {t} thread{'s' * (t > 1)}" for p, t in ARMS]
    print("|", *names, sep=" | ", end=" |\n|" + "---|" * (1 + len(ARMS)) + "\n")
    for size in SIZES:
        steps = [f"{median(found[size, arm]):.0f} ms" for arm in ARMS]
        print(f"| {size.units} units, batches of {size.batch_size}", *steps, sep=" | ", end=" |\n")


def measured(size: Size, processes: int, threads: int, seconds: float) -> float:
    """Milliseconds of a step of one training on this many processes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    together = {"WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", "benchmarks.processes", "--seconds", str(seconds)]
    started = [
        subprocess.Popen(
            [*command, "--train", *map(str, size)],
            env=os.environ
            | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": "src"}
            | {name: str(value) for name, value in together.items()}
            | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}),
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        first, *_ = [process.communicate()[0] for process in started]
        return float(first)
    finally:
        for process in started:
            process.kill()


def train(size: Size, seconds: float) -> None:
    """Train that long after a warm-up, alone or with others; the first prints a step's time."""
    import torch

    from benchmarks.contender import CLASSES, LEARNING_RATE
    from mnist_lstm.data.sequences import Sequences
    from mnist_lstm.learning import build, device, group
    from mnist_lstm.learning.fit import fit

    where = device.choose("cpu")
    pixels = torch.randint(256, IMAGES, dtype=torch.uint8)
    labels = torch.randint(CLASSES, IMAGES[:1], dtype=torch.uint8)
    data = Sequences(pixels, labels, CLASSES, "random", {})
    learner = build.learner(
        0,
        partial(build.model, data, where, hidden_size=size.units, **MODEL),
        len(data),
        precision="float32",
        wavefront=False,
        steps=ENDLESS,
        batch_size=size.batch_size,
        learning_rate=LEARNING_RATE,
        schedule="constant",
        averaging=0.0,
        weight_decay=0.0,
    )
    done, began = 0, 0.0
    with group.joined(where) as together:

        def is_over() -> bool:
            return done >= WARM_UP and time.perf_counter() - began >= seconds

        if together:
            together.share_state(learner)
        steps = fit(
            *learner.parts,
            *(data, data, data),
            start=0,
            steps=ENDLESS,
            eval_every=ENDLESS,
            eval_batch_size=size.batch_size,
            group=together,
            stop=is_over,
        )
        for _ in steps:
            done += 1
            if done == WARM_UP:
                began = time.perf_counter()
            if together.stops if together else is_over():
                break
        if together is None or together.is_first:
            print(1000 * (time.perf_counter() - began) / (done - WARM_UP))


if __name__ == "__main__":
    main()
