"""IDX bytes <-> uint8 arrays.

MNIST is published in the IDX format: two zero bytes, the type (8: unsigned byte), the rank, each
dimension as four bytes (big-endian), then the values, the last dimension fastest. A file is often
compressed with gzip.
"""

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnist_lstm import UserError

MAX_VALUES = 2**30  # 1 GiB, twenty times MNIST: a header that claims more is not believed
_CHUNK = 2**16  # bytes
_MAGIC = bytes([0, 0, 8])


class IdxError(UserError):
    """The content is not valid IDX. The message names file, field, expected and found value."""

    def __init__(self, name: str, field: str, expected: str, found: str) -> None:
        super().__init__(f"{name}: {field}: expected {expected}, found {found}")


def encode(array: NDArray[np.uint8]) -> bytes:
    """Encode an array as gzipped IDX, always as the same bytes. Raises TypeError unless uint8."""
    if array.dtype != np.uint8:
        raise TypeError(f"IDX values are uint8 here, not {array.dtype}")
    packed = io.BytesIO()
    # Not gzip.compress(mtime=0): the system byte that it writes differs between Python versions.
    with gzip.GzipFile(mode="wb", fileobj=packed, mtime=0) as file:
        file.write(_MAGIC + struct.pack(f">B{array.ndim}I", array.ndim, *array.shape))
        file.write(array.tobytes())
    return packed.getvalue()


def decode(content: bytes, *, rank: int, name: str) -> NDArray[np.uint8]:
    """Decode IDX bytes, plain or gzipped, into an array of `rank` dimensions.

    Errors call the content `name`. Nothing beyond the size in the header is unpacked, and memory
    stays below twice the part of that size which is present. Raises IdxError.
    """
    return _decode(io.BytesIO(content), rank, name)


def read_pair(
    images: Path, labels: Path, num_classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read images (N, H, W) and their labels (N,), all below `num_classes`, from two IDX files.

    Raises IdxError, and UserError if a file is missing.
    """
    pixels, classes = _read(images, rank=3), _read(labels, rank=1)
    if len(pixels) != len(classes):
        raise IdxError(
            str(labels),
            "count",
            f"{len(pixels):,} labels as {images} has images",
            f"{len(classes):,}",
        )
    beyond = classes >= num_classes
    if beyond.any():
        first = int(beyond.argmax())
        raise IdxError(
            str(labels),
            f"label {first:,}",
            f"a class from 0 to {num_classes - 1}",
            str(classes[first]),
        )
    return pixels, classes


def _read(path: Path, rank: int) -> NDArray[np.uint8]:
    try:
        with path.open("rb") as file:
            return _decode(file, rank, str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro fetch` makes it") from None


def _decode(file: io.BufferedIOBase, rank: int, name: str) -> NDArray[np.uint8]:
    gzipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not gzipped:
        return _parse(file, rank, name)
    try:
        with gzip.open(file) as unpacked:
            return _parse(unpacked, rank, name)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise IdxError(name, "gzip", "a whole, undamaged stream", str(error)) from None


def _parse(file: io.BufferedIOBase, rank: int, name: str) -> NDArray[np.uint8]:
    start = file.read(4)
    if start[:3] != _MAGIC[: len(start)]:
        raise IdxError(name, "magic", f"{_MAGIC.hex(' ')} (unsigned bytes)", start[:3].hex(" "))
    if len(start) == 4 and start[3] != rank:
        raise IdxError(name, "rank", str(rank), str(start[3]))
    dimensions = file.read(4 * rank)
    if len(start + dimensions) < 4 + 4 * rank:
        raise IdxError(name, "header", f"{4 + 4 * rank} bytes", str(len(start + dimensions)))
    shape = struct.unpack(f">{rank}I", dimensions)
    for index, size in enumerate(shape):
        if size == 0:
            raise IdxError(name, f"dimension {index}", "at least 1", "0")
    size, claim = math.prod(shape), " × ".join(f"{size:,}" for size in shape)
    if size > MAX_VALUES:
        raise IdxError(name, "dimensions", f"at most {MAX_VALUES:,} values", claim)

    values = bytearray()
    # read at most one byte more than the header claims, to notice bytes after the end
    while chunk := file.read(min(_CHUNK, size + 1 - len(values))):
        values += chunk
    if len(values) != size:
        found = f"{len(values):,}" if len(values) < size else "trailing bytes"
        raise IdxError(name, "values", f"{size:,} bytes ({claim})", found)
    return np.frombuffer(values, np.uint8).reshape(shape)
