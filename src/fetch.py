"""Fetch the four IDX files of a data set into a folder, verified. Run: dvc repro fetch"""

import os
from functools import partial
from pathlib import Path

from mnist_lstm import mirrors, stage
from mnist_lstm.params import Params


def fetch(params: Params, raw: Path) -> None:
    """Put the four files of the data set into the folder `raw`, from the first mirror that can."""
    dataset = mirrors.DATASETS[params.fetch.dataset]
    images = f"{dataset.train_images:,} training and {dataset.test_images:,} test images"
    say = partial(print, flush=True)
    say(f"{dataset.name}: {images}, into {raw}")
    sources = mirrors.mirror_list(os.environ.get("MNIST_MIRROR"), stage.root())
    mirrors.fetch(dataset, raw, sources, report=say)


if __name__ == "__main__":
    stage.run(fetch)
