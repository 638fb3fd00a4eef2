"""Measure the effect of each ingredient of recipes/best.yaml: train without it, with two seeds.

Run: python benchmarks/ingredients.py   (22 trainings as DVC experiments, with fewer steps and a
narrower model than the recipe's; experiments that this commit already has are not trained again).
Writes benchmarks/ingredients.csv, one row for each training, and prints the table of
docs/accuracy.md.
"""

import csv
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean, stdev

HERE = Path(__file__).parent
FILE = HERE / "ingredients.csv"
SEEDS = 2
# with so few steps, the recipe's averaging decay would reach too far back
SHORTER = {"model.hidden_size": 128, "train.steps": 2000, "train.averaging": 0.99}
UNDISTORTED = {f"augment.{kind}": 0 for kind in ("rotation", "scale", "shear", "shift", "elastic")}
# what is left out, and the reference's values in its place
WITHOUT: Mapping[str, Mapping[str, object]] = {
    "nothing": {},
    "distorted images": UNDISTORTED,
    "elastic distortions only": {"augment.elastic": 0},
    "one-cycle learning rate": {"train.schedule": "constant", "train.learning_rate": 0.001},
    "averaged weights": {"train.averaging": 0},
    "mean pooling": {"model.pooling": "last"},
    "orthogonal recurrent weights": {"model.recurrent_init": "uniform"},
    "clipped gradients": {"train.clip_norm": None},
    "weight decay": {"train.weight_decay": 0},
    "dropout of 0.2 instead of 0.5": {"model.dropout": 0.5},
}


def main() -> None:
    whole = {key: value for left_out in WITHOUT.values() for key, value in left_out.items()}
    trainings = [row for name, values in WITHOUT.items() for row in measured(name, values)]
    trainings += measured("everything", whole)
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, trainings[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(trainings)
    print(table())


def measured(without: str, values: Mapping[str, object]) -> Iterable[dict[str, object]]:
    """The results of each seed without an ingredient. Trains if there is no such experiment."""
    settings = (f"{key}={json.dumps(value)}" for key, value in {**SHORTER, **values}.items())
    changes = [part for setting in settings for part in ("-S", setting)]
    command = [str(Path(sys.executable).parent / "mnist-lstm"), "seeds", str(SEEDS)]
    printed = subprocess.run(
        [*command, "recipes/best.yaml", *changes, "--json"],
        cwd=HERE.parent,
        check=True,
        stdout=subprocess.PIPE,
    )
    for record in json.loads(printed.stdout)["records"]:
        metrics = record["metrics"]
        yield {
            "without": without,
            "seed": record["params"]["seed"],
            "validation_accuracy": metrics["validation"]["accuracy"],
            "test_accuracy": metrics["test"]["accuracy"],
            "validation_shifted_accuracy": metrics["validation"]["shifted_accuracy"],
            "test_shifted_accuracy": metrics["test"]["shifted_accuracy"],
            "seconds": record["seconds"],
            "device": record["device"],
            "model_sha256": record["model_sha256"],
        }


def table() -> str:
    """The table of docs/accuracy.md, from the file: accuracies in percent."""
    with FILE.open() as file:
        rows = list(csv.DictReader(file))
    lines = ["| without | validation images | test images |", "|---|---|---|"]
    for name in dict.fromkeys(row["without"] for row in rows):
        of = [row for row in rows if row["without"] == name]
        lines.append(
            f"| {name} | {format_accuracy(of, 'validation_')} | {format_accuracy(of, 'test_')} |"
        )
        if name == "nothing":
            shifted = [format_accuracy(of, f"{split}_shifted_") for split in ("validation", "test")]
            lines.append(f"| nothing, measured with shifted images | {' | '.join(shifted)} |")
    return "\n".join(lines)


def format_accuracy(rows: Iterable[Mapping[str, str]], of: str) -> str:
    """Mean and standard deviation, in points, over the seeds."""
    figures = [float(row[f"{of}accuracy"]) for row in rows]
    return f"{mean(figures):.2%} ± {100 * stdev(figures):.2f}"


if __name__ == "__main__":
    main()
