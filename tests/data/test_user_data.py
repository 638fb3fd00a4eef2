"""A user's own files are used as they are, and wrong files are named."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mnist_lstm import UserError
from mnist_lstm.data.datasets import (
    CLASSES,
    FILES,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
)
from mnist_lstm.data.idx import encode, read_pair
from mnist_lstm.data.mirrors import fetch
from mnist_lstm.data.user_data import read


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's folder: 12×9 images of three classes, two files uncompressed and two gzipped."""
    folder = tmp_path / "own"
    folder.mkdir()
    draw = np.random.default_rng(0).integers
    arrays = {
        TRAIN_IMAGES: draw(0, 256, (30, 12, 9), dtype=np.uint8),
        TRAIN_LABELS: draw(0, 3, 30, dtype=np.uint8),
        TEST_IMAGES: draw(0, 256, (20, 12, 9), dtype=np.uint8),
        TEST_LABELS: draw(0, 3, 20, dtype=np.uint8),
    }
    for name, array in arrays.items():
        if name.startswith("train"):
            plain = gzip.decompress(encode(array))
            (folder / name.removesuffix(".gz")).write_bytes(plain)
        else:
            (folder / name).write_bytes(encode(array))
    (folder / CLASSES).write_text("cat\ndog\nT-shirt/top\n")
    return folder


def test_own_files_are_taken_plain_or_inside_gzip(own, tmp_path):
    dataset = read(own)
    assert (dataset.name, dataset.train_images, dataset.test_images) == ("own", 30, 20)
    assert dataset.classes == ("cat", "dog", "T-shirt/top")
    raw, lines = tmp_path / "data" / "raw", list[str]()
    fetch(dataset, raw, [], lines.append)
    assert all(line.endswith(f"  from {own}") for line in lines)
    for name in FILES:
        content = (raw / name).read_bytes()
        if (own / name).exists():
            assert content == (own / name).read_bytes()
        else:
            assert gzip.decompress(content) == (own / name.removesuffix(".gz")).read_bytes()
    images, labels = read_pair(raw / TRAIN_IMAGES, raw / TRAIN_LABELS, 3)
    assert (images.shape, labels.shape) == ((30, 12, 9), (30,))


def write(name: str, content: str | bytes | np.ndarray) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = encode(content) if isinstance(content, np.ndarray) else content
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)

    return change


def class_names(own: Path, text: str) -> tuple[str, ...]:
    (own / CLASSES).write_bytes(text.encode())
    return read(own).classes


def test_lines_end_as_windows_and_old_editors_end_them(own):
    for text in ("a b\r\nγάτα\r\n🐈\r\n", "a b\rγάτα\r🐈", "a b \nγάτα\n\t🐈\n"):
        assert class_names(own, text) == ("a b", "γάτα", "🐈")


OBEYED = "<>\0\t\v\f\x1b\x1c\x7f\x85\xad\u2028\u2029\u202e\ufeff\U000e0041"


@pytest.mark.parametrize("character", OBEYED)
def test_no_class_name_has_what_a_terminal_or_a_page_obeys(own, character):
    for name in (f"d{character}g", f"dog{character}."):
        with pytest.raises(UserError, match=rf"line 2 .* has U\+{ord(character):04X}$"):
            class_names(own, f"cat\n{name}\nT-shirt/top\n")


@pytest.mark.parametrize("file", ["/dev/zero", "/dev/urandom"])
def test_a_link_to_what_never_ends_is_no_file(own, file):
    (own / CLASSES).unlink()
    (own / CLASSES).symlink_to(file)
    with pytest.raises(UserError, match="no such file"):
        read(own)


def test_a_mark_of_utf8_is_no_part_of_a_name(own):
    (own / CLASSES).write_text("cat\ndog\nT-shirt/top\n", encoding="utf-8-sig")
    assert read(own).classes == ("cat", "dog", "T-shirt/top")


MANY = "".join(f"{number}\n" for number in range(257))
NOT_OWN = {
    "no classes": (lambda own: (own / CLASSES).unlink(), f"{CLASSES}: no such file; write "),
    "no text": (write(CLASSES, b"\xff\xfe"), f"{CLASSES}: not UTF-8 text (invalid start byte"),
    "one class": (write(CLASSES, "cat\n"), f"{CLASSES}: must name 2 to 256 classes"),
    "257 classes": (write(CLASSES, MANY), f"{CLASSES}: must name 2 to 256 classes"),
    "a million": (write(CLASSES, "x\n" * 10**6), f"{CLASSES}: must name 2 to 256 classes"),
    "empty line": (write(CLASSES, "cat\n \ndog\n"), f"{CLASSES}: line 2 must have the name"),
    "twice": (write(CLASSES, "cat\ndog\ncat\n"), f"{CLASSES}: line 3 must have a new name"),
    "no file": (lambda own: (own / TEST_LABELS).unlink(), "t10k-labels-idx1-ubyte: no such file, "),
    "two files": (write(TRAIN_LABELS, b""), "train-labels-idx1-ubyte: exists with .gz and "),
    "not IDX": (write(TEST_IMAGES, b"PNG!"), f"{TEST_IMAGES}: magic: expected 00 00 08"),
    "label": (write(CLASSES, "cat\ndog\n"), "train-labels-idx1-ubyte: label "),
    "count": (write(TEST_LABELS, np.zeros(19, np.uint8)), f"{TEST_LABELS}: count: expected 20 "),
    "size": (
        write(TEST_IMAGES, np.zeros((20, 9, 12), np.uint8)),
        f"{TEST_IMAGES}: images must have the size of those in ",
    ),
}


@pytest.mark.parametrize(("change", "message"), NOT_OWN.values(), ids=NOT_OWN)
def test_own_files_that_do_not_fit_are_named(own, change, message):
    change(own)
    with pytest.raises(UserError) as caught:
        read(own)
    assert str(caught.value).startswith(f"{own}/{message}")
    assert "\n" not in str(caught.value)
