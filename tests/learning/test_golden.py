"""Has an upgrade changed the arithmetic? Compare the first steps of a training with recorded ones.

tests/golden/PLATFORM.csv has the recorded steps. Run this file to record the present platform:
PYTHONPATH=src:tests python tests/learning/test_golden.py [cuda bfloat16]
"""

import csv
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from mnist_lstm.data.sequences import Sequences
from mnist_lstm.learning import build, device, precision
from mnist_lstm.learning.fit import fit

GOLDEN = Path(__file__).parent.parent / "golden"
STEPS = 50
# relative, for losses: versions of a library round differently; another formula differs much more
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
# number of images, of the 297 in each split, whose answer may differ
IMAGES = {"float32": 1, "bfloat16": 6}


def first_steps(where: torch.device, computes_in: str) -> Iterator[dict[str, float]]:
    """Loss and accuracies after each of the first steps, on scikit-learn's digits."""
    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images * 15.9375).to(torch.uint8)  # 0–16 -> 0–255
    labels = torch.from_numpy(bunch.target).to(torch.uint8)
    train, validation, test = (
        Sequences(pixels[part], labels[part], 10, "digits", {}).to(where)
        for part in (slice(0, 1203), slice(1203, 1500), slice(1500, 1797))
    )
    sizes = {"hidden_size": 64, "num_layers": 2, "dropout": 0.2, "forget_bias": 1.0}
    make = partial(build.model, train, where, **sizes, implementation="fused")
    learner = build.learner(
        0,
        make,
        len(train),
        precision=computes_in,
        wavefront=precision.is_wavefront(computes_in, make(), (64, 8, 8)),
        steps=STEPS,
        batch_size=64,
        learning_rate=0.005,
        schedule="constant",
        averaging=0.0,
        weight_decay=0.0,
    )
    on_gpu = where.type == "cuda"
    settings = {"steps": STEPS, "eval_every": 1, "eval_batch_size": 1000, "recorded": on_gpu}
    for evaluation in fit(*learner.parts, train, validation, test, start=0, **settings):
        assert evaluation
        names = ("step", "train_loss", "validation_accuracy", "test_accuracy")
        yield {name: getattr(evaluation, name) for name in names}


def golden(where: torch.device, computes_in: str) -> Path:
    """The file with the recorded steps of a platform."""
    words = f"{device.describe(where)} {computes_in}"
    return GOLDEN / f"{re.sub('[^A-Za-z0-9]+', '-', words).lower()}.csv"


@pytest.mark.parametrize("computes_in", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_first_steps_are_those_of_this_platform(name: str, computes_in: str) -> None:
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    before = torch.are_deterministic_algorithms_enabled()
    where = device.choose(name)
    try:
        file = golden(where, computes_in)
        if not file.exists():
            pytest.skip(f"no golden curve of this platform: {file.name}")
        steps = list(first_steps(where, computes_in))
    finally:
        torch.use_deterministic_algorithms(before)
    with file.open() as lines:
        expected = list(csv.DictReader(lines))
    assert len(steps) == len(expected) == STEPS
    for step, row in zip(steps, expected, strict=True):
        told = f"step {row['step']} of {file.name}"
        loss = pytest.approx(float(row["train_loss"]), rel=TOLERANCE[computes_in])
        assert step["train_loss"] == loss, told
        for split in ("validation_accuracy", "test_accuracy"):
            apart = abs(step[split] - float(row[split]))
            assert apart * 297 <= IMAGES[computes_in] + 0.5, f"{split}, {told}"


if __name__ == "__main__":
    name, computes_in = sys.argv[1:] or ["cpu", "float32"]
    where = device.choose(name)
    rows = list(first_steps(where, computes_in))
    GOLDEN.mkdir(exist_ok=True)
    with golden(where, computes_in).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(golden(where, computes_in))
