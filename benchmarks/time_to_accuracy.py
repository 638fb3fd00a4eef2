"""Measure the time to 99 %: train recipes/fast.yaml with five seeds.

Run: dvc repro preprocess && python -m benchmarks.time_to_accuracy [--device D] [--precision P]

As in the speed records of other data sets, the time is that of the training alone, from initial
weights to the last update: images are loaded before, a training of a few steps compiles kernels
before, and evaluations do not count. Writes benchmarks/time-to-accuracy-DEVICE.csv, one row for
each seed, and prints the line of docs/accuracy.md.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean, stdev

import torch

from benchmarks import trainings
from benchmarks.studies import HERE, PROJECT, SEQUENCES
from mnist_lstm import UserError
from mnist_lstm.learning import device
from mnist_lstm.pipeline import params
from mnist_lstm.pipeline.result_files import write_rows

RECIPE = PROJECT / "recipes" / "fast.yaml"
SEEDS = range(5)
WARM_UP = 5  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options, machine = trainings.with_machine(parser)
    where = device.choose(options.device)
    trained(where, {**machine, "train.steps": WARM_UP})
    rows = []
    for seed in SEEDS:
        rows.append(trained(where, {**machine, "seed": seed}))
        print("seed {seed}: {seconds} s, {test_accuracy}".format(**rows[-1]), flush=True)
    write_rows(HERE / f"time-to-accuracy-{where.type}.csv", rows)
    print(summary(rows))


def trained(
    where: torch.device, changes: Mapping[str, object], sequences: Path = SEQUENCES
) -> dict[str, str]:
    """Train the recipe with changes; returns its row. Evaluates once, after the last step."""
    steps = params.load(RECIPE, changes).train.steps
    recipe = params.load(RECIPE, {**changes, "train.eval_every": steps})
    data = trainings.data_of(recipe, sequences, where)
    seconds = 0.0

    def stop() -> None:
        nonlocal seconds
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        seconds = time.perf_counter() - start

    learner, progress = trainings.begin(recipe, data, stop)
    start = time.perf_counter()
    *_, last = progress
    assert last
    return {
        "seed": str(recipe.seed),
        "steps": str(steps),
        "seconds": f"{seconds:.3f}",
        "validation_accuracy": str(last.validation_accuracy),
        "test_accuracy": str(last.test_accuracy),
        "model_sha256": trainings.model_sha256(learner),
        "device": device.describe(where),
        "precision": learner.model.precision,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }


def summary(rows: Iterable[Mapping[str, str]]) -> str:
    """Accuracy and time of all seeds, each mean ± standard deviation."""
    rows = list(rows)
    right = [100 * float(row["test_accuracy"]) for row in rows]
    seconds = [float(row["seconds"]) for row in rows]
    steps, where, computes_in = (rows[0][key] for key in ("steps", "device", "precision"))
    return (
        f"{mean(right):.2f}% ± {stdev(right):.2f} of the test images in {mean(seconds):.1f} s "
        f"± {stdev(seconds):.1f}: {int(steps):,} steps in {computes_in} on {where}"
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
