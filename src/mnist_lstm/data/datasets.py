"""The data sets: their files, checksums, classes and sources."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

TRAIN_IMAGES = "train-images-idx3-ubyte.gz"
TRAIN_LABELS = "train-labels-idx1-ubyte.gz"
TEST_IMAGES = "t10k-images-idx3-ubyte.gz"
TEST_LABELS = "t10k-labels-idx1-ubyte.gz"
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
CLASSES = "classes.txt"  # the names of the classes, one on each line, in the order of the labels

# bytes: a little more than 60,000 and 10,000 images of 28×28 take before compression
SIZE_BOUNDS = {
    TRAIN_IMAGES: 48_000_000,
    TRAIN_LABELS: 62_000,
    TEST_IMAGES: 8_000_000,
    TEST_LABELS: 12_000,
}


@dataclass(frozen=True)
class Published:
    """The digest (hex, by `algorithm`) and the size (bytes) that a file must have.

    If the size is not published, `exact` is False and `size` is an upper bound.
    """

    algorithm: Literal["sha256", "md5"]
    digest: str
    size: int
    exact: bool = True

    def mistake(self, content: bytes) -> str | None:
        """What is wrong with a file's content; None if it is right."""
        if len(content) > self.size or (self.exact and len(content) != self.size):
            size = "more" if len(content) > self.size else f"{len(content):,}"
            return f"expected {'' if self.exact else 'at most '}{self.size:,} bytes, {size} came"
        found = hashlib.new(self.algorithm, content, usedforsecurity=False).hexdigest()
        if found != self.digest:
            name = {"sha256": "SHA-256", "md5": "MD5"}[self.algorithm]
            return f"{name} is {found[:12]}…, expected {self.digest[:12]}…"
        return None


@dataclass(frozen=True)
class Dataset:
    """A data set: four gzipped IDX files with the names in `FILES`.

    A data set has either `files`, which mirrors provide (`mirrors`, addresses of folders, and those
    of torchvision's class `torchvision`), or `make`, a function that returns the contents by file
    name without a mirror; `origin` then names the source.
    """

    name: str
    classes: tuple[str, ...]
    train_images: int
    test_images: int
    files: Mapping[str, Published] = field(default_factory=dict)
    mirrors: tuple[str, ...] = ()
    torchvision: str = ""
    make: Callable[[], dict[str, bytes]] | None = None
    origin: str = ""


def _digits() -> dict[str, bytes]:
    """From scikit-learn's file; its own loader would import scikit-learn and pandas as well."""
    import numpy as np

    from mnist_lstm.data.idx import encode

    place, train = find_spec("sklearn"), DATASETS["digits"].train_images
    assert place
    assert place.origin
    path = Path(place.origin).with_name("datasets") / "data" / "digits.csv.gz"
    rows = np.loadtxt(path, delimiter=",")  # (1797, 65): 64 pixels of 0–16, and the digit
    images = (rows[:, :-1] * 255 / 16).round().astype("uint8").reshape(-1, 8, 8)
    labels = rows[:, -1].astype("uint8")  # (1797,)
    return {
        TRAIN_IMAGES: encode(images[:train]),
        TRAIN_LABELS: encode(labels[:train]),
        TEST_IMAGES: encode(images[train:]),
        TEST_LABELS: encode(labels[train:]),
    }


def _by_md5(*digests: str) -> dict[str, Published]:
    """Files for which torchvision lists only MD5 sums, in the order of `FILES`.

    Their SHA-256 and size are not published. MD5 detects a damaged or wrong file, but not a file
    that was forged on purpose.
    """
    return {
        name: Published("md5", digest, SIZE_BOUNDS[name], exact=False)
        for name, digest in zip(FILES, digests, strict=True)
    }


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="mnist",
            classes=tuple("0123456789"),
            train_images=60_000,
            test_images=10_000,
            files={
                TRAIN_IMAGES: Published(
                    "sha256",
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    9_912_422,
                ),
                TRAIN_LABELS: Published(
                    "sha256",
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    28_881,
                ),
                TEST_IMAGES: Published(
                    "sha256",
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    1_648_877,
                ),
                TEST_LABELS: Published(
                    "sha256",
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                    4_542,
                ),
            },
            torchvision="MNIST",
        ),
        Dataset(
            name="fashion-mnist",
            classes=(
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            ),
            train_images=60_000,
            test_images=10_000,
            files=_by_md5(
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "25c81989df183df01b3e8a0aad5dffbe",
                "bef4ecab320f06d8554ea6380940ec79",
                "bb300cfdad3c16e7a12a480ee83cd310",
            ),
            torchvision="FashionMNIST",
        ),
        Dataset(
            name="kmnist",
            classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
            train_images=60_000,
            test_images=10_000,
            files=_by_md5(
                "bdb82020997e1d708af4cf47b453dcf7",
                "e144d726b3acfaa3e44228e80efcd344",
                "5c965bf0a639b31b8f53240b1b52f4d7",
                "7320c461ea6c1c855c0b718fb2a4b134",
            ),
            torchvision="KMNIST",
        ),
        Dataset(
            name="digits",
            classes=tuple("0123456789"),
            train_images=1_437,
            test_images=360,
            make=_digits,
            origin="made here",
        ),
    )
}
OWN = "own"  # the user's own data set, which user_data.py reads
NAMES = (*DATASETS, OWN)
