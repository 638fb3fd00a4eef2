"""Does it do what the published script did? Five seeds of the reference recipe, as DVC experiments.

Run: python benchmarks/reproduction.py   (a training each, minutes on two cores; what the cache
holds is not trained again). Writes benchmarks/reproduction.csv, a row an evaluation, and prints
the README's table.
"""

import csv
import io
import subprocess
from pathlib import Path
from statistics import mean

SEEDS = range(5)
HERE = Path(__file__).parent
CURVES = HERE / "reproduction.csv"
PUBLISHED = HERE.parent / "data" / "published_curve.csv"


def main() -> None:
    curves = {seed: curve(seed) for seed in SEEDS}
    rows = [{"seed": seed} | row for seed, rows in curves.items() for row in rows]
    with CURVES.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(table())


def curve(seed: int) -> list[dict[str, str]]:
    """The curve.csv of a seed, from its experiment, which is run where there is none."""
    name = f"reproduction-seed-{seed}"
    if not (reference := experiment(name)):
        run("dvc", "exp", "run", "--temp", "--name", name, "--set-param", f"seed={seed}")
        reference = experiment(name)
    return list(
        csv.DictReader(io.StringIO(output("git", "show", f"{reference}:results/train/curve.csv")))
    )


def experiment(name: str) -> str:
    """The git reference of DVC's experiment of that name on the present commit, or nothing."""
    head = output("git", "rev-parse", "HEAD").strip()
    pattern = f"refs/exps/{head[:2]}/{head[2:]}/{name}"
    return output("git", "for-each-ref", "--format=%(refname)", pattern).strip()


def table() -> str:
    """The README's table, from the two files of curves: percent of the test images."""
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


def run(*command: str) -> None:
    subprocess.run(command, cwd=HERE.parent, check=True)


def output(*command: str) -> str:
    return subprocess.run(
        command, cwd=HERE.parent, check=True, capture_output=True, text=True
    ).stdout


if __name__ == "__main__":
    main()
