"""Does it do what the published script did? Five seeds of the reference recipe, as DVC experiments.

Run: python benchmarks/reproduction.py   (five trainings of some minutes on two cores; experiments
that this commit already has are not trained again). Writes benchmarks/reproduction.csv, one row for
each evaluation, and prints the README's table.
"""

import csv
import tempfile
from pathlib import Path
from statistics import mean

from mnist_lstm.pipeline import params
from mnist_lstm.pipeline.result_files import Row, read_rows, write_rows
from mnist_lstm.runs import experiment, seeds

SEEDS = range(5)
HERE = Path(__file__).parent
ROOT = HERE.parent
CURVES = HERE / "reproduction.csv"
PUBLISHED = ROOT / "data" / "published_curve.csv"


def main() -> None:
    code = experiment.code_digest(ROOT)
    write_rows(CURVES, [{"seed": seed} | row for seed in SEEDS for row in curve(seed, code)])
    print(table())


def curve(seed: int, code: str) -> list[Row]:
    """The curve.csv of a seed, from its experiment with this code. If there is none, it is run."""
    recipe, here = (
        params.flatten(params.load(ROOT / name).model_dump())
        for name in ("recipes/reference.yaml", "params.yaml")
    )
    with tempfile.TemporaryDirectory() as folder:
        seeds.seed_record(ROOT, recipe | {"seed": seed}, here, code, "reference", Path(folder))
        return read_rows(Path(folder) / f"seed-{seed}.csv")


def table() -> str:
    """The README's table, from the two files of curves: test accuracies in percent."""
    with PUBLISHED.open() as file:
        published = [float(row["test_accuracy"]) for row in csv.DictReader(file)]
    with CURVES.open() as file:
        rows = list(csv.DictReader(file))
    curves = {
        f"seed {seed}": [float(row["test_accuracy"]) for row in rows if row["seed"] == str(seed)]
        for seed in SEEDS
    }
    means = [mean(values) for values in zip(*curves.values(), strict=True)]
    lines = [
        f"| {name} | {mean(test[:10]):.2%} | {mean(test[-10:]):.2%} | {test[-1]:.2%} |"
        for name, test in ({"published": published} | curves | {"five seeds": means}).items()
    ]
    head = ["| | mean of the first ten | mean of the last ten | step 2,000 |", "|---|---|---|---|"]
    return "\n".join(head + lines)


if __name__ == "__main__":
    main()
