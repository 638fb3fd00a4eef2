"""Measure the accuracy of `mnist-lstm predict` on MNIST test images as PNG files, also altered.

Run: python benchmarks/predict.py [--model FILE] [--images N]   (without --model: the champion,
otherwise the workspace's model). The images come from MNIST_MIRROR if it names a folder, otherwise
from data/raw.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_lstm.data.datasets import TEST_IMAGES, TEST_LABELS
from mnist_lstm.data.idx import read_pair

ROOT = Path(__file__).parent.parent
SHIFT = 4  # pixels, at most
Pixels = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", metavar="FILE", type=Path)
    parser.add_argument("--images", metavar="N", type=int, default=1000, help="the first N")
    arguments = parser.parse_args()
    data = Path(os.environ.get("MNIST_MIRROR") or "data/raw")
    data = data if data.is_absolute() else ROOT / data
    images, labels = read_pair(data / TEST_IMAGES, data / TEST_LABELS, 10)
    images, labels = images[: arguments.images], labels[: arguments.images]
    named = ["--model", str(arguments.model.absolute())] if arguments.model else []
    print(f"| {len(images):,} test images | accuracy | seconds |\n|---|---|---|")
    for name, alter in ALTERED.items():
        with tempfile.TemporaryDirectory() as folder:
            for index, image in enumerate(images):
                alter(image, index).save(Path(folder) / f"{index:05}.png")
            started = time.monotonic()
            read = predicted(folder, named)
            took = time.monotonic() - started
        right = np.mean([answer == str(label) for answer, label in zip(read, labels, strict=True)])
        print(f"| {name} | {right:.1%} | {took:.1f} |", flush=True)


def predicted(folder: str, named: list[str]) -> list[str]:
    """The predicted classes of a folder's pictures, in the order of their names."""
    program = str(Path(sys.executable).with_name("mnist-lstm"))
    command = [program, "predict", folder, "--json", *named]
    printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    return [told["class"] for told in json.loads(printed)]


def plain(image: Pixels, _: int) -> Image.Image:
    return Image.fromarray(image)


def inverted(image: Pixels, _: int) -> Image.Image:
    return Image.fromarray(255 - image)


def enlarged(method: Image.Resampling) -> Callable[[Pixels, int], Image.Image]:
    return lambda image, _: Image.fromarray(image).resize((7 * 28, 7 * 28), method)


def shifted(image: Pixels, index: int) -> Image.Image:
    """Shift the image by up to SHIFT pixels each way, but never so far that ink is cut off."""
    shifts = []
    for axis, draw in enumerate(np.random.default_rng(index).integers(-SHIFT, SHIFT + 1, 2)):
        inked = np.flatnonzero(image.any(axis=1 - axis))
        shifts.append(int(np.clip(draw, -inked[0], len(image) - 1 - inked[-1])))
    return Image.fromarray(np.roll(image, shifts, axis=(0, 1)))


ALTERED: dict[str, Callable[[Pixels, int], Image.Image]] = {
    "plain": plain,
    "enlarged ×7, nearest": enlarged(Image.Resampling.NEAREST),
    "enlarged ×7, bicubic": enlarged(Image.Resampling.BICUBIC),
    "inverted": inverted,
    f"shifted by up to {SHIFT} pixels": shifted,
}

if __name__ == "__main__":
    main()
