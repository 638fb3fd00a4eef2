"""Measure a training step when several trainings run at once, by how idle threads wait.

Run: python -m benchmarks.company [--seconds N] [--rounds N]
Prints the table of docs/benchmark.md: the median of all trainings and rounds, in milliseconds. The
trainings are the reference's on random images, each with one thread for each core. They start to
count when all are ready. `spinning` is OpenMP's default, `sleeping` is OMP_WAIT_POLICY=PASSIVE;
mnist_lstm.pipeline.company chooses between them.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from mnist_lstm.pipeline.company import CHOSEN_BY

AT_ONCE = (1, 2, 4)
POLICIES = {"spinning": {}, "sleeping": {"OMP_WAIT_POLICY": "PASSIVE"}}
WARM_UP = 5  # steps


def main() -> None:
    """Measure each number of trainings with each policy, in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", metavar="N", type=float, default=20)
    parser.add_argument("--rounds", metavar="N", type=int, default=2)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.seconds)
        return
    print("| trainings at once | spinning | sleeping |\n|---|---|---|")
    for trainings in AT_ONCE:
        steps: dict[str, list[float]] = {policy: [] for policy in POLICIES}
        for _ in range(arguments.rounds):
            for policy, variables in POLICIES.items():
                steps[policy] += together(trainings, variables, arguments.seconds)
        times = " | ".join(f"{median(steps[policy]):.0f} ms" for policy in POLICIES)
        print(f"| {trainings} | {times} |", flush=True)


def together(trainings: int, variables: dict[str, str], seconds: float) -> list[float]:
    """Milliseconds of a step in each of the trainings, which run at the same time."""
    kept = {name: value for name, value in os.environ.items() if name not in CHOSEN_BY}
    command = [sys.executable, "-m", "benchmarks.company", "--train", "--seconds", str(seconds)]
    processes = [
        subprocess.Popen(
            command,
            env=kept | variables,
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(trainings)
    ]
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        return [float(process.communicate()[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()


def train(seconds: float) -> None:
    """Be ready, wait for a line, train that long, and print the milliseconds of a step."""
    from benchmarks.contender import Work
    from benchmarks.contenders.project import Project

    project = Project(Work(WARM_UP, 1, 1, 0, 0, threads=os.cpu_count() or 1))
    for _ in range(WARM_UP):
        project.step()
    print("ready", flush=True)
    sys.stdin.readline()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        project.step()
        steps += 1
    print(1000 * (time.perf_counter() - start) / steps)


if __name__ == "__main__":
    main()
