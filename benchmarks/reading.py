"""Measure the seconds in which the evaluate stage computes the answers after each row.

Run by pipeline.py: python -m benchmarks.reading FOLDER
"""

import sys
import time
from pathlib import Path

from mnist_lstm.data.sequences import Sequences
from mnist_lstm.learning import device
from mnist_lstm.learning.evaluation import read_row_by_row
from mnist_lstm.learning.model import RowLSTM
from mnist_lstm.pipeline.params import load


def seconds(project: Path) -> float:
    """Seconds for all validation and test images, with the model that was trained there."""
    params = load(project / "params.yaml")
    where = device.choose(params.train.device)
    model = RowLSTM.load(project / "results" / "train" / "model.safetensors").to(where)
    data = [
        Sequences.load(project / "data" / "sequences" / f"{split}.safetensors")
        for split in ("validation", "test")
    ]
    start = time.perf_counter()
    for found in data:
        read_row_by_row(model, found.pixels.to(where).split(params.evaluate.batch_size)).cpu()
    return time.perf_counter() - start


if __name__ == "__main__":
    print(seconds(Path(sys.argv[1])))
