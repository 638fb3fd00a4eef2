"""Measure the seconds in which the evaluate stage computes the model's answers.

Run by pipeline.py: python -m benchmarks.reading FOLDER
"""

import sys
import time
from pathlib import Path

import evaluate
from mnist_lstm.data.sequences import Sequences
from mnist_lstm.learning import device
from mnist_lstm.pipeline.params import load
from mnist_lstm.pipeline.result_files import FinishedTraining


def seconds(project: Path) -> float:
    """Seconds for all answers that the stage needs of the model that was trained there."""
    params = load(project / "params.yaml")
    training, settings = project / "results" / "train", params.evaluate
    where = device.choose(params.train.device)
    precision = FinishedTraining.read(training).about.precision
    model = evaluate.load_model(training / "model.safetensors", where, precision)
    data = {
        split: Sequences.load(project / "data" / "sequences" / f"{split}.safetensors")
        for split in evaluate.EVALUATED
    }
    start = time.perf_counter()
    evaluate.answers_of(model, settings.shifts, settings.batch_size, data)
    evaluate.robustness(model, data["test"], settings.batch_size)
    return time.perf_counter() - start


if __name__ == "__main__":
    print(seconds(Path(sys.argv[1])))
