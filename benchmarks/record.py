"""How many seconds until 99 %? Train recipes/fast.yaml with five seeds, by the rules of records.

Run: dvc repro preprocess && python -m benchmarks.record [--device NAME] [--precision NAME]

As in speed records for other data sets, the time is that of the training alone, from initialised
weights to trained ones: images are loaded before, kernels are compiled before (by a training of a
few steps), and evaluations are left out. The mean accuracy of all seeds must be 99 %.

Writes benchmarks/record-DEVICE.csv, one row for each seed, and prints the line of docs/accuracy.md.
"""

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean, stdev

import torch

from benchmarks import trainings
from benchmarks.studies import HERE, PROJECT, SEQUENCES
from mnist_lstm import UserError
from mnist_lstm.files import sha256
from mnist_lstm.learning import device
from mnist_lstm.learning.optimizer import averaged
from mnist_lstm.pipeline import params

RECIPE = PROJECT / "recipes" / "fast.yaml"
SEEDS = range(5)
WARM_UP = 5  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--precision", default="auto", help="auto, bfloat16 or float32")
    options = parser.parse_args()
    where = device.choose(options.device)
    machine = {"train.device": options.device, "train.precision": options.precision}
    trained(where, {**machine, "train.steps": WARM_UP})
    rows = []
    for seed in SEEDS:
        rows.append(trained(where, {**machine, "seed": seed}))
        print("seed {seed}: {seconds} s, {test_accuracy}".format(**rows[-1]), flush=True)
    with (HERE / f"record-{where.type}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
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
    with averaged(learner.optimizer), tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.safetensors"
        learner.model.save(model)
        digest = sha256(model)
    return {
        "seed": str(recipe.seed),
        "steps": str(steps),
        "seconds": f"{seconds:.3f}",
        "validation_accuracy": str(last.validation_accuracy),
        "test_accuracy": str(last.test_accuracy),
        "model_sha256": digest,
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
