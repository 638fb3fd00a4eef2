"""IDX: written files are read back, and malformed files are refused in one line."""

import gzip
import math
import re
import struct
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import Edit, edited, few_or_many, fuzz, some_edits
from numpy.typing import NDArray

from mnist_lstm import UserError
from mnist_lstm.data.idx import MAX_VALUES, IdxError, decode, encode, read_pair

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 4, 5), dtype=np.uint8)
LABELS = np.array([0, 9, 4], dtype=np.uint8)
PLAIN = bytes([0, 0, 8, 3]) + struct.pack(">III", 3, 4, 5) + IMAGES.tobytes()


def header(*shape: int) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


@pytest.mark.parametrize(
    "array", [IMAGES, LABELS, IMAGES[:, ::2]], ids=["images", "labels", "view"]
)
def test_what_is_encoded_is_decoded(array):
    back = decode(encode(array), rank=array.ndim, name="x")
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, array)


def test_encoding_is_the_published_format_inside_gzip():
    assert gzip.decompress(encode(IMAGES)) == PLAIN


def test_encoding_has_no_time_and_no_name_in_it():
    packed = encode(IMAGES)
    assert packed[3] == 0  # no optional field
    assert packed[4:8] == bytes(4)  # no time


def test_encoding_refuses_values_that_are_not_bytes():
    with pytest.raises(TypeError, match="int64"):
        encode(np.array([1, 300], dtype=np.int64))


@pytest.mark.parametrize("content", [PLAIN, gzip.compress(PLAIN)], ids=["plain", "gzip"])
def test_plain_and_gzipped_are_read(content):
    np.testing.assert_array_equal(decode(content, rank=3, name="x"), IMAGES)


def test_gzip_of_several_members_is_read():
    content = gzip.compress(PLAIN[:30]) + gzip.compress(PLAIN[30:])
    np.testing.assert_array_equal(decode(content, rank=3, name="x"), IMAGES)


MALFORMED = {
    "empty": (b"", "header: expected 16 bytes, found 0"),
    "a web page": (b"<html>", "magic: expected 00 00 08 (unsigned bytes), found 3c 68 74"),
    "floats": (
        b"\0\0\x0d" + PLAIN[3:],
        "magic: expected 00 00 08 (unsigned bytes), found 00 00 0d",
    ),
    "nonzero start": (
        b"\1" + PLAIN[1:],
        "magic: expected 00 00 08 (unsigned bytes), found 01 00 08",
    ),
    "labels for images": (header(2) + b"ab", "rank: expected 3, found 1"),
    "too many dimensions": (header(1, 1, 1, 1) + b"a", "rank: expected 3, found 4"),
    "cut in the header": (PLAIN[:9], "header: expected 16 bytes, found 9"),
    "no images": (header(0, 4, 5), "dimension 0: expected at least 1, found 0"),
    "no columns": (header(3, 4, 0), "dimension 2: expected at least 1, found 0"),
    "cut": (PLAIN[:-1], "values: expected 60 bytes (3 × 4 × 5), found 59"),
    "one byte more": (PLAIN + b"\0", "values: expected 60 bytes (3 × 4 × 5), found trailing bytes"),
    "fewer claimed": (
        header(2, 4, 5) + PLAIN[16:],
        "values: expected 40 bytes (2 × 4 × 5), found trailing bytes",
    ),
    "absurd claim": (
        header(2**31, 28, 28) + b"abc",
        f"dimensions: expected at most {MAX_VALUES:,} values, found 2,147,483,648 × 28 × 28",
    ),
    "claim that overflows": (
        header(2**32 - 1, 2**32 - 1, 2**32 - 1),
        f"dimensions: expected at most {MAX_VALUES:,} values, found "
        "4,294,967,295 × 4,294,967,295 × 4,294,967,295",
    ),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(("content", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_content_is_refused_with_file_and_field(content, reason, pack):
    with pytest.raises(IdxError, match=f"^{re.escape(f'some-file.gz: {reason}')}$"):
        decode(pack(content), rank=3, name="some-file.gz")


PACKED = gzip.compress(PLAIN)


@pytest.mark.parametrize(
    "content",
    [
        PACKED[:5],
        PACKED[:-9],
        PACKED[:-1],
        PACKED[:-8] + bytes([PACKED[-8] ^ 1]) + PACKED[-7:],
        PACKED[:-1] + bytes([PACKED[-1] ^ 1]),
        PACKED[:10] + b"\xff" * 20,
        PACKED + b"garbage",
    ],
    ids=["header", "data", "last byte", "checksum", "length", "codes", "garbage behind"],
)
def test_a_broken_gzip_is_refused(content):
    message = "^some-file.gz: gzip: expected a whole, undamaged stream, found .+$"
    with pytest.raises(IdxError, match=message):
        decode(content, rank=3, name="some-file.gz")


ROOM = 2**19  # bytes that gzip itself needs, whatever it reads


def read(content: bytes, rank: int) -> tuple[NDArray[np.uint8] | IdxError, int]:
    """Decode the content; returns the array or the error, and the peak memory in bytes."""
    tracemalloc.start()
    try:
        found: NDArray[np.uint8] | IdxError = decode(content, rank=rank, name="x")
    except IdxError as refusal:
        found = refusal
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return found, peak


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_memory_follows_the_content_not_the_header(pack):
    claim = header(2**14, 2**8, 2**8)
    assert MAX_VALUES == 2**14 * 2**8 * 2**8
    refusal, peak = read(pack(claim + b"abc"), rank=3)
    assert str(refusal).endswith("found 3")
    assert peak < ROOM


def test_a_gzip_bomb_is_read_only_to_the_size_in_its_header():
    refusal, peak = read(gzip.compress(header(1, 28, 28) + bytes(2**26)), rank=3)
    assert str(refusal).endswith("found trailing bytes")
    assert peak < ROOM


@pytest.mark.parametrize("pack", [bytes, partial(gzip.compress, compresslevel=1)])
@pytest.mark.parametrize("values", [bytes, np.random.default_rng(0).bytes], ids=["zeros", "noise"])
@pytest.mark.parametrize("images", [2**6, 2**9, 2**12, 2**15])
def test_no_more_memory_than_twice_the_values(images, values, pack):
    size = images * 16 * 16
    array, peak = read(pack(header(images, 16, 16) + values(size)), rank=3)
    assert array.nbytes == size
    assert peak < 2 * size + ROOM


def test_labels_beyond_the_classes_take_no_more_memory_than_twice_the_labels(tmp_path):
    size = 2**22
    for name, shape in (("images", (size, 1, 1)), ("labels", (size,))):
        (tmp_path / name).write_bytes(header(*shape) + b"\xff" * size)
    tracemalloc.start()
    try:
        with pytest.raises(IdxError, match="label 0: expected a class from 0 to 9, found 255"):
            read_pair(tmp_path / "images", tmp_path / "labels", num_classes=10)
        assert tracemalloc.get_traced_memory()[1] < 2 * (2 * size) + ROOM
    finally:
        tracemalloc.stop()


SIZES = [struct.pack(">I", size) for size in (0, 1, 2, 3, 60, 2**16, 2**30, 2**31, 2**32 - 1)]
ARRAYS = st.sampled_from([IMAGES, LABELS, RNG.integers(0, 256, (2, 28, 28), dtype=np.uint8)])
NONE, SOME = st.just(()), some_edits(SIZES)
FILES = st.tuples(ARRAYS, SOME, st.sampled_from([None, ()])) | st.tuples(ARRAYS, NONE, NONE | SOME)


def damaged(
    array: NDArray[np.uint8], plain: Sequence[Edit], packed: Sequence[Edit] | None
) -> bytes:
    """IDX with edits before and after it is compressed; None leaves it uncompressed."""
    content = header(*array.shape) + array.tobytes()
    content = edited(content, [3, *range(4, 4 + 4 * array.ndim)], plain)
    if packed is None:
        return content
    content = gzip.compress(content, mtime=0)
    return edited(content, [*range(10), *range(len(content) - 8, len(content))], packed)


def what_it_says(content: bytes, rank: int) -> NDArray[np.uint8] | None:
    """A simple decoder to compare with: the array, or None if the content is malformed."""
    try:
        plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error):
        return None
    values = 4 + 4 * rank
    if plain[:4] != bytes([0, 0, 8, rank]) or len(plain) < values:
        return None
    shape = np.frombuffer(plain[4:values], ">u4").tolist()
    if 0 in shape or math.prod(shape) != len(plain) - values:
        return None
    return np.frombuffer(plain[values:], np.uint8).reshape(shape)


@few_or_many
def test_mutated_files_are_read_correctly_or_refused(cases):
    outcomes = Counter[str]()

    @fuzz(cases)
    @given(FILES)
    def check(file: tuple[NDArray[np.uint8], Sequence[Edit], Sequence[Edit] | None]) -> None:
        content, rank = damaged(*file), file[0].ndim
        expected = what_it_says(content, rank)
        found, peak = read(content, rank)
        if isinstance(found, IdxError):
            assert expected is None
            _, field, _ = str(found).split(": ", 2)
            assert "\n" not in str(found)
        else:
            field = "read"
            assert found.dtype == np.uint8
            np.testing.assert_array_equal(found, expected, strict=True)
        assert peak < 2 * len(content) + ROOM
        outcomes[re.sub(r" \d", "", field)] += 1

    check()
    assert outcomes.total() >= cases
    assert outcomes.keys() == {
        *("read", "magic", "rank", "header", "dimension", "dimensions", "values", "gzip")
    }
    assert min(outcomes.values()) >= cases / 250, outcomes


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    images, labels = tmp_path / "images.gz", tmp_path / "labels.gz"
    images.write_bytes(encode(IMAGES))
    labels.write_bytes(encode(LABELS))
    return images, labels


def test_a_pair_is_read(pair):
    images, labels = read_pair(*pair, num_classes=10)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize("count", [2, 4])
def test_counts_that_differ_are_refused(pair, count):
    images, labels = pair
    labels.write_bytes(encode(np.zeros(count, np.uint8)))
    with pytest.raises(IdxError) as caught:
        read_pair(images, labels, num_classes=10)
    assert (
        str(caught.value)
        == f"{labels}: count: expected 3 labels as {images} has images, found {count}"
    )


def test_a_label_beyond_the_classes_is_refused(pair):
    images, labels = pair
    with pytest.raises(IdxError) as caught:
        read_pair(images, labels, num_classes=9)
    assert str(caught.value) == f"{labels}: label 1: expected a class from 0 to 8, found 9"


def test_swapped_files_are_refused(pair):
    images, labels = pair
    with pytest.raises(IdxError, match=rf"^{re.escape(str(labels))}: rank: expected 3, found 1$"):
        read_pair(labels, images, num_classes=10)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_file_says_what_makes_it(pair, missing):
    pair[missing].unlink()
    with pytest.raises(UserError) as caught:
        read_pair(*pair, num_classes=10)
    assert str(caught.value) == f"{pair[missing]}: no such file; `dvc repro fetch` makes it"
