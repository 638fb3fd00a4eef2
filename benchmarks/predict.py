"""How many MNIST test images `mnist-lstm predict` reads right: as PNGs, altered, photographed.

Run: python benchmarks/predict.py [--model FILE] [--images N] [--photos N] [--seed N]
(without --model: the champion, else the workspace's). The first N images are altered; N drawn with
the seed become photographs of 400 by 400 pixels: paper 230, ink 40, noise 4. The images are those
of MNIST_MIRROR where it names a folder, else of data/raw.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mnist_lstm.data.datasets import TEST_IMAGES, TEST_LABELS
from mnist_lstm.data.idx import read_pair
from mnist_lstm.data.mirrors import folder_of

ROOT = Path(__file__).parent.parent
SHIFT = 4  # pixels, at most
SIDE, PAPER, INK, NOISE = 400, 230, 40, 4  # of a photograph
Pixels = NDArray[np.uint8]
Levels = NDArray[np.float64]
Alter = Callable[[Pixels, np.random.Generator], Image.Image]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", metavar="FILE", type=Path)
    parser.add_argument("--images", metavar="N", type=int, default=1000, help="the first N")
    parser.add_argument("--photos", metavar="N", type=int, default=100, help="N that are drawn")
    parser.add_argument("--seed", metavar="N", type=int, default=0)
    arguments = parser.parse_args()
    given = os.environ.get("MNIST_MIRROR") or "data/raw"
    data = ROOT / "data" / "raw" if "://" in given else folder_of(given, ROOT)
    images, labels = read_pair(data / TEST_IMAGES, data / TEST_LABELS, 10)
    named = ["--model", str(arguments.model.absolute())] if arguments.model else []
    first = np.arange(arguments.images)
    drawn = np.random.default_rng(arguments.seed).permutation(len(images))[: arguments.photos]
    print("| test images | number | read right | doubted | seconds |\n|---|---|---|---|---|")
    for name, alter in {**ALTERED, **PHOTOS}.items():
        chosen = drawn if name in PHOTOS else first
        with tempfile.TemporaryDirectory() as folder:
            for at, index in enumerate(chosen):
                draw = np.random.default_rng([arguments.seed, int(index)])
                alter(images[index], draw).save(Path(folder) / f"{at:05}.png")
            started = time.monotonic()
            read, doubted = predicted(folder, named)
            took = time.monotonic() - started
        right = np.mean([read.get(at) == str(labels[i]) for at, i in enumerate(chosen)])
        print(f"| {name} | {len(chosen)} | {right:.1%} | {doubted} | {took:.1f} |", flush=True)


def predicted(folder: str, named: list[str]) -> tuple[dict[int, str], int]:
    """The class of each picture that could be read, by its number, and how many are doubted."""
    program = str(Path(sys.executable).with_name("mnist-lstm"))
    command = [program, "predict", folder, "--json", *named]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode > 1:
        sys.exit(done.stderr)
    answers = {one["file"]: one["class"] for one in json.loads(done.stdout) if "class" in one}
    read = {int(Path(file).stem): name for file, name in answers.items()}
    return read, doubted(done.stderr, answers)


def doubted(said: str, read: Iterable[str]) -> int:
    """How many of the files that were read `predict` doubts, in one line or more."""
    return sum(f"mnist-lstm predict: {file}: " in said for file in read)


def plain(image: Pixels, _: np.random.Generator) -> Image.Image:
    return Image.fromarray(image)


def inverted(image: Pixels, _: np.random.Generator) -> Image.Image:
    return Image.fromarray(255 - image)


def enlarged(method: Image.Resampling) -> Alter:
    return lambda image, _: Image.fromarray(image).resize((7 * 28, 7 * 28), method)


def shifted(image: Pixels, draw: np.random.Generator) -> Image.Image:
    """Shift the image by up to SHIFT pixels each way, but never so far that ink is cut off."""
    shifts = []
    for axis, shift in enumerate(draw.integers(-SHIFT, SHIFT + 1, 2)):
        inked = np.flatnonzero(image.any(axis=1 - axis))
        shifts.append(int(np.clip(shift, -inked[0], len(image) - 1 - inked[-1])))
    return Image.fromarray(np.roll(image, shifts, axis=(0, 1)))


def inked(image: Pixels, draw: np.random.Generator) -> Levels:
    """The share of ink (0–1) on a page: the image 160 to 320 pixels high, anywhere on it."""
    size = int(draw.integers(160, 321))
    top, left = draw.integers(0, SIDE - size + 1, 2)
    page = np.zeros((SIDE, SIDE))
    large = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    page[top : top + size, left : left + size] = np.asarray(large) / 255
    return page


def photograph(
    ink: Levels, draw: np.random.Generator, paper: Levels | int = PAPER, light: Levels | int = 1
) -> Image.Image:
    levels = (paper + (np.minimum(paper, INK) - paper) * ink) * light
    noisy = levels + draw.normal(0, NOISE, levels.shape)
    return Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8))


def clean(image: Pixels, draw: np.random.Generator) -> Image.Image:
    return photograph(inked(image, draw), draw)


def one_pixel(image: Pixels, draw: np.random.Generator) -> Image.Image:
    page = clean(image, draw)
    page.putpixel((int(draw.integers(3, 20)), SIDE - int(draw.integers(3, 20))), INK)
    return page


def specks(image: Pixels, draw: np.random.Generator) -> Image.Image:
    """Six squares of 2 to 12 pixels, anywhere."""
    ink = inked(image, draw)
    for size in draw.integers(2, 13, 6):
        top, left = draw.integers(0, SIDE - size, 2)
        ink[top : top + size, left : left + size] = 1
    return photograph(ink, draw)


def lined(*axes: int) -> Alter:
    """Lines 1 to 3 pixels wide, 24 to 55 apart, across these axes."""

    def alter(image: Pixels, draw: np.random.Generator) -> Image.Image:
        paper = np.full((SIDE, SIDE), float(PAPER))
        apart, wide, level = draw.integers(24, 56), draw.integers(1, 4), draw.integers(90, 190)
        start = draw.integers(0, apart)
        for axis in axes:
            paper[(np.indices(paper.shape)[axis] + start) % apart < wide] = level
        return photograph(inked(image, draw), draw, paper)

    return alter


def shadow(image: Pixels, draw: np.random.Generator) -> Image.Image:
    """A shadow's edge, through the middle half, at any angle; it leaves 40 to 65 % of the light."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    angle, edge, left = draw.uniform(0, 2 * np.pi), draw.uniform(-0.5, 0.5), draw.uniform(0.4, 0.65)
    light = np.where(np.cos(angle) * x + np.sin(angle) * y > edge, 1, left)
    return photograph(inked(image, draw), draw, light=light)


def vignette(image: Pixels, draw: np.random.Generator) -> Image.Image:
    """The corners lose 60 to 85 % of the light."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    light = 1 - draw.uniform(0.6, 0.85) * (x**2 + y**2) / 2
    return photograph(inked(image, draw), draw, light=light)


def jpeg(image: Pixels, draw: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    clean(image, draw).save(file, "JPEG", quality=20)
    return Image.open(file).copy()


def blurred(image: Pixels, draw: np.random.Generator) -> Image.Image:
    return clean(image, draw).filter(ImageFilter.GaussianBlur(2))


def rotated(image: Pixels, draw: np.random.Generator) -> Image.Image:
    ink = Image.fromarray(inked(image, draw).astype(np.float32))
    turned = ink.rotate(float(draw.choice([-10, 10])), Image.Resampling.BICUBIC)
    return photograph(np.asarray(turned, dtype=np.float64).clip(0, 1), draw)


PHOTOS: dict[str, Alter] = {
    "photograph": clean,
    "one dark pixel": one_pixel,
    "specks of 2 to 12 pixels": specks,
    "ruled paper": lined(0),
    "squared paper": lined(0, 1),
    "hard edge of a shadow": shadow,
    "strong vignette": vignette,
    "JPEG of quality 20": jpeg,
    "blur of 2 pixels": blurred,
    "rotated by 10°": rotated,
}
ALTERED: dict[str, Alter] = {
    "plain": plain,
    "enlarged ×7, nearest": enlarged(Image.Resampling.NEAREST),
    "enlarged ×7, bicubic": enlarged(Image.Resampling.BICUBIC),
    "inverted": inverted,
    f"shifted by up to {SHIFT} pixels": shifted,
}

if __name__ == "__main__":
    main()
