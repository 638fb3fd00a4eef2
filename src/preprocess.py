"""Turn the four IDX files into row sequences: train, validation, test. Run: dvc repro preprocess"""

from mnist_lstm.pipeline import signals

if __name__ == "__main__":
    signals.watch()  # before the other imports, which take seconds
    from mnist_lstm.pipeline import stage

    stage.begin()

from pathlib import Path

import torch
from tqdm import tqdm

from mnist_lstm.data import idx
from mnist_lstm.data.sequences import Sequences, split
from mnist_lstm.pipeline import progress, stage
from mnist_lstm.pipeline.params import Params


def preprocess(params: Params, raw: Path, sequences: Path) -> None:
    """Read the files in `raw`, split the training images, write the splits into `sequences`."""
    settings = params.preprocess
    num_classes = len((raw / "classes.txt").read_text(encoding="utf-8").splitlines())
    pairs = {
        name: idx.read_pair(
            raw / f"{prefix}-images-idx3-ubyte.gz",
            raw / f"{prefix}-labels-idx1-ubyte.gz",
            num_classes,
        )
        for name, prefix in progress.of((("train", "train"), ("test", "t10k")), "reading")
    }
    train_size = params.train_images_of(len(pairs["train"][0]))
    generator = (
        None if settings.split_seed is None else torch.Generator().manual_seed(settings.split_seed)
    )
    pairs["train"], pairs["validation"] = split(
        *pairs["train"], settings.validation_size, generator, train_size
    )
    # a file of all images is, bit for bit, what it was before there was train_size
    about = settings.model_dump(exclude=None if settings.train_size else {"train_size"})
    for name in progress.of(("train", "validation", "test"), "writing"):
        images, labels = pairs[name]
        # the rows of an image are its time steps: (N, H, W) is already (N, T, D)
        found = Sequences(
            torch.from_numpy(images),
            torch.from_numpy(labels),
            num_classes,
            params.fetch.dataset,
            about,
        )
        found.save(sequences / f"{name}.safetensors")
        _, rows, pixels = images.shape
        tqdm.write(f"{name:>10}: {len(found):>6,} images, {rows} rows of {pixels} pixels")


if __name__ == "__main__":
    stage.run(preprocess)
