"""Fetch the four IDX files of a data set into a folder, verified. Run: dvc repro fetch"""

from mnist_lstm.pipeline import signals

if __name__ == "__main__":
    signals.watch()  # before the other imports, which take seconds
    from mnist_lstm.pipeline import stage

    stage.begin()

import os
from pathlib import Path

from tqdm import tqdm

from mnist_lstm.data import mirrors, user_data
from mnist_lstm.data.datasets import CLASSES, DATASETS, OWN
from mnist_lstm.files import write_atomically
from mnist_lstm.pipeline import progress, stage
from mnist_lstm.pipeline.params import Params


def fetch(params: Params, own_folder: Path, raw: Path) -> None:
    """Write the files of the data set and its class names into the folder `raw`.

    The files come from the first mirror that has them. Those of the user's own data set come from
    `own_folder`.
    """
    name = params.fetch.dataset
    dataset = user_data.read(own_folder) if name == OWN else DATASETS[name]
    images = f"{dataset.train_images:,} training and {dataset.test_images:,} test images"
    print(f"{dataset.name}: {images}, into {raw}")
    sources = mirrors.mirror_list(dataset, os.environ.get("MNIST_MIRROR"), stage.root())
    with progress.of_downloads() as show:
        mirrors.fetch(dataset, raw, sources, tqdm.write, show)
    write_atomically(raw / CLASSES, "".join(f"{n}\n" for n in dataset.classes).encode())


if __name__ == "__main__":
    stage.run(fetch)
