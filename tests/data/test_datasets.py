"""The data sets have the published checksums (torchvision's), and digits is scikit-learn's."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from mnist_lstm.data.datasets import (
    DATASETS,
    FILES,
    SIZE_BOUNDS,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
)
from mnist_lstm.data.idx import read_pair
from mnist_lstm.data.mirrors import fetch, mirror_list


def test_mnist_is_the_published_files():
    mnist = DATASETS["mnist"]
    assert set(mnist.files) == set(FILES)
    assert {file.algorithm for file in mnist.files.values()} == {"sha256"}
    assert all(len(bytes.fromhex(file.digest)) == 32 for file in mnist.files.values())
    assert sum(file.size for file in mnist.files.values()) == 11_594_722
    assert (mnist.train_images, mnist.test_images, len(mnist.classes)) == (60_000, 10_000, 10)


@pytest.mark.parametrize("name", ["fashion-mnist", "kmnist"])
def test_sums_and_classes_are_torchvisions(name):
    from torchvision import datasets

    dataset = DATASETS[name]
    theirs = getattr(datasets, dataset.torchvision)
    assert {file: published.digest for file, published in dataset.files.items()} == dict(
        theirs.resources
    )
    assert {file.algorithm for file in dataset.files.values()} == {"md5"}
    assert list(dataset.classes) == theirs.classes
    assert list(mirror_list(dataset, None, Path())) == theirs.mirrors


def test_mnists_torchvision_class_has_its_files():
    from torchvision import datasets

    theirs = getattr(datasets, DATASETS["mnist"].torchvision)
    assert {name for name, _ in theirs.resources} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_bound_leaves_room_for_files_that_do_not_compress(name):
    images, pixels = (60_000 if name.startswith("train") else 10_000), 28 * 28
    # a hundredth of the images stands for all: noise takes the same space everywhere
    size, part = (images * pixels, 100) if "images" in name else (images, 1)
    noise = np.random.default_rng(0).bytes(16 + size // part)
    assert len(gzip.compress(noise, 1)) < SIZE_BOUNDS[name] / part


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tmp_path / "data" / "raw"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fetch_digits(raw: Path) -> list[str]:
    lines: list[str] = []
    fetch(DATASETS["digits"], raw, [], lines.append)
    return lines


def test_digits_are_scikit_learns_rescaled_to_bytes(raw):
    from sklearn.datasets import load_digits

    fetch_digits(raw)
    digits, source = DATASETS["digits"], load_digits()
    images, labels = read_pair(raw / TRAIN_IMAGES, raw / TRAIN_LABELS, len(digits.classes))
    test_images, test_labels = read_pair(raw / TEST_IMAGES, raw / TEST_LABELS, len(digits.classes))
    assert images.shape == (1_437, 8, 8) == (digits.train_images, 8, 8)
    assert test_images.shape == (360, 8, 8) == (digits.test_images, 8, 8)
    assert (images.min(), images.max()) == (0, 255)
    pixels = np.concatenate([images, test_images])
    np.testing.assert_array_equal(np.rint(pixels / 255 * 16), source.images)
    np.testing.assert_array_equal(pixels[source.images == 8], 128)
    np.testing.assert_array_equal(np.concatenate([labels, test_labels]), source.target)
    assert set(labels.tolist()) == set(test_labels.tolist()) == set(range(10))


def test_digits_are_the_same_bytes_each_time_and_replace_what_differs(raw, tmp_path):
    fetch_digits(raw)
    first = contents(raw)
    assert set(first) == set(FILES)
    (raw / TRAIN_LABELS).write_bytes(b"other labels")
    lines = fetch_digits(raw)
    assert contents(raw) == first
    assert len([line for line in lines if line.endswith("  already there")]) == 3
    fetch_digits(tmp_path / "again")
    assert contents(tmp_path / "again") == first
