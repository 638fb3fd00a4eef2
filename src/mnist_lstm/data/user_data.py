"""The user's own data set: a folder with four files of IDX and `classes.txt`.

The files have the names in `datasets.FILES`, without `.gz` if they are not compressed. classes.txt
has one class name on each line, in the order of the labels. Names are shown in terminals and in
HTML pages, also DVC's. So they must have printable characters only, and neither `<` nor `>`.
"""

from io import StringIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnist_lstm import UserError
from mnist_lstm.data.datasets import (
    CLASSES,
    FILES,
    OWN,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    Dataset,
)
from mnist_lstm.data.idx import encode, read_pair

LONGEST = 64 * 1024  # bytes that classes.txt may have: 256 for each class


def read(folder: Path) -> Dataset:
    """Read and check the data set in a folder.

    Raises UserError with the name of the user's file if a file is missing or invalid.
    """
    classes = _class_names(folder / CLASSES)
    paths = {name: _plain_or_gzip(folder, name) for name in FILES}
    train = read_pair(paths[TRAIN_IMAGES], paths[TRAIN_LABELS], len(classes))
    test = read_pair(paths[TEST_IMAGES], paths[TEST_LABELS], len(classes))
    sizes = [f"{images.shape[1]} rows of {images.shape[2]} pixels" for images, _ in (train, test)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"{paths[TEST_IMAGES]}: images must have the size of those in {paths[TRAIN_IMAGES]}, "
            f"{sizes[0]}, have {sizes[1]}"
        )
    arrays = dict(zip(FILES, (*train, *test), strict=True))
    return Dataset(
        name=OWN,
        classes=classes,
        train_images=len(train[0]),
        test_images=len(test[0]),
        make=lambda: {name: _packed(paths[name], arrays[name]) for name in FILES},
        origin=f"from {folder}",
    )


def _class_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():  # a device would never end
        raise UserError(
            f"{path}: no such file; write the name of each class on a line of it, in the order of "
            "the labels: docs/datasets.md"
        )
    with path.open("rb") as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise UserError(
            f"{path}: must name 2 to 256 classes, one a line, has over {LONGEST:,} bytes"
        )
    try:
        # "-sig": skips the mark that Windows writes at the start of UTF-8 files
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    # not splitlines(): it also ends lines at U+2028 and at some control characters
    names = [line.strip(" \t\n") for line in StringIO(text, newline=None)]
    if not 2 <= len(names) <= 256:
        raise UserError(f"{path}: must name 2 to 256 classes, one a line, names {len(names)}")
    for number, name in enumerate(names, start=1):
        if not name:
            raise UserError(f"{path}: line {number} must have the name of a class, is empty")
        if unfit := [each for each in name if not each.isprintable() or each in "<>"]:
            raise UserError(
                f"{path}: line {number} must be of printable characters other than < and >, has "
                f"U+{ord(unfit[0]):04X}"
            )
        if (first := names.index(name) + 1) != number:
            raise UserError(f"{path}: line {number} must have a new name, is that of line {first}")
    return tuple(names)


def _plain_or_gzip(folder: Path, name: str) -> Path:
    plain = folder / name.removesuffix(".gz")
    found = [path for path in (plain, folder / name) if path.is_file()]
    if not found:
        raise UserError(
            f"{plain}: no such file, with .gz or without; a data set of one's own is four files of "
            "IDX: docs/datasets.md"
        )
    if len(found) == 2:
        raise UserError(f"{plain}: exists with .gz and without; keep one of the two")
    return found[0]


def _packed(path: Path, array: NDArray[np.uint8]) -> bytes:
    content = path.read_bytes()
    return content if content.startswith(b"\x1f\x8b") else encode(array)
