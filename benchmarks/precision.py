"""Does a faster precision cost accuracy? Five seeds of the reference recipe in each precision.

Run: dvc repro preprocess && python -m benchmarks.precision [DEVICE [PRECISION …]]

Trains with the project's own learner and loop, without DVC and MLflow. After each training, it
writes benchmarks/precision-DEVICE.csv, one row for each evaluation. Prints the table of
docs/benchmark.md.
"""

import sys
import time
from collections.abc import Iterator
from statistics import mean, stdev

import torch
from tqdm import tqdm

from benchmarks import trainings
from benchmarks.studies import PROJECT, SEQUENCES
from mnist_lstm import UserError
from mnist_lstm.learning import device
from mnist_lstm.pipeline import params
from mnist_lstm.pipeline.result_files import row, write_rows

SEEDS = range(5)
LAST = 10  # evaluations whose mean is compared: a single one depends on luck


def main() -> None:
    name, *precisions = sys.argv[1:] or ["auto"]
    where = device.choose(name)
    rows: list[dict[str, object]] = []
    file = PROJECT / "benchmarks" / f"precision-{where.type}.csv"
    for computes_in in precisions or ["float32", "bfloat16"]:
        for seed in SEEDS:
            rows += curve(seed, computes_in, where)
            write_rows(file, rows)
    print(device.describe(where), f"torch {torch.__version__}", summary(rows), sep="\n")


def curve(seed: int, computes_in: str, where: torch.device) -> Iterator[dict[str, object]]:
    """The evaluations of a training, each with the seconds that the training had taken."""
    changes = {"seed": seed, "train.precision": computes_in}
    recipe = params.load(PROJECT / "recipes" / "reference.yaml", changes)
    _, steps = trainings.begin(recipe, trainings.data_of(recipe, SEQUENCES, where))
    start = time.perf_counter()
    for evaluation in tqdm(steps, f"{computes_in}, seed {seed}", recipe.train.steps):
        if evaluation:
            seconds = round(time.perf_counter() - start, 3)
            yield {"precision": computes_in, "seed": seed, "seconds": seconds} | row(evaluation)


def summary(rows: list[dict[str, object]]) -> str:
    """The table: the mean of the last test accuracies of each seed, and the mean over the seeds."""
    lines = [
        f"| precision | {' | '.join(f'seed {seed}' for seed in SEEDS)} | mean | a training |",
        "|---" * (len(SEEDS) + 3) + "|",
    ]
    for name in dict.fromkeys(line["precision"] for line in rows):
        of = [
            [line for line in rows if (line["precision"], line["seed"]) == (name, seed)]
            for seed in SEEDS
        ]
        tests = [mean(float(str(found["test_accuracy"])) for found in one[-LAST:]) for one in of]
        seconds = sorted(float(str(one[-1]["seconds"])) for one in of)[len(of) // 2]
        means = " | ".join(f"{test:.2%}" for test in tests)
        spread = f"{mean(tests):.2%} ± {100 * stdev(tests):.2f}"
        lines.append(f"| {name} | {means} | {spread} | {seconds:.1f} s |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
