"""Damage valid files, draw odd pictures, and the settings with which readers are fuzzed."""

import json
import re
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from numpy.typing import NDArray

Edit = tuple[str, int, int, bytes]

# how many damaged files a reader is tried with
few_or_many = pytest.mark.parametrize("cases", [250, pytest.param(5000, marks=pytest.mark.soak)])


def fuzz(cases: int) -> settings:
    """Settings for this many cases, which are the same in every run of the tests."""
    return settings(
        max_examples=cases,
        derandomize=True,
        database=None,
        deadline=None,  # a case takes a millisecond, and ten on a busy machine
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


def some_edits(values: Sequence[bytes]) -> SearchStrategy[Sequence[Edit]]:
    """One to three edits of a file, which write interesting `values` or random bytes."""
    kinds = st.sampled_from(["flip", "overwrite", "insert", "repeat", "delete", "cut"])
    place = st.integers(0, 2**16 - 1)
    written = st.binary(min_size=1, max_size=8) | st.sampled_from(values)
    return st.lists(st.tuples(kinds, place, place, written), min_size=1, max_size=3)


def edited(content: bytes, fields: Sequence[int], edits: Sequence[Edit]) -> bytes:
    """A file after some edits, half of them at `fields`, the positions of its header's fields."""
    file = bytearray(content)
    for kind, place, other, written in edits:
        where, odd = divmod(place, 2)
        at = fields[where % len(fields)] if odd else where % len(content)
        match kind:
            case "flip" if at < len(file):
                file[at] ^= 1 << other % 8
            case "overwrite":
                file[at : at + len(written)] = written
            case "insert":
                file[at:at] = written
            case "repeat":
                file[at:at] = content[other % len(content) :][:64]
            case "delete":
                del file[at : at + len(written)]
            case "cut":
                del file[at:]
    return bytes(file)


_SHARES = st.tuples(*[st.sampled_from([0, 0.02, 0.1, 0.25, 0.5, 0.8, 1])] * 4)
_LEVEL = st.sampled_from([0, 18, 130, 216, 255])
_SHAPES = st.sampled_from(["box", "line", "falling", "dots"])
MARKS = st.lists(st.tuples(_SHAPES, _SHARES, _LEVEL), max_size=6)
DRAWN = st.builds(
    lambda high, wide, paper, marks: drawn(np.full((high, wide), paper, np.uint8), marks),
    *(st.integers(1, 60), st.integers(1, 60), _LEVEL, MARKS),
)


def drawn(
    picture: NDArray[np.uint8], marks: Sequence[tuple[str, Sequence[float], int]]
) -> NDArray[np.uint8]:
    """A picture with boxes, lines and dots on it. Places are shares of its sides."""
    height, width = picture.shape
    for shape, (top, left, high, wide), level in marks:
        y, x = int(top * (height - 1)), int(left * (width - 1))
        rows, columns = max(1, int(high * height)), max(1, int(wide * width))
        match shape:
            case "box":
                picture[y : y + rows, x : x + columns] = level
            case "line":
                picture[y, x : x + columns] = level
            case "falling":
                count = min(height - y, width - x, columns)
                picture[range(y, y + count), range(x, x + count)] = level
            case "dots":
                picture[y::rows, x::columns] = level
    return picture


TOKEN = re.compile(r'-?[0-9]+(?:\.[0-9]+)?|"(?:[^"\\]|\\.)*"')  # of JSON: a number or a string
VALUE = re.compile(rf"(?<=: )(?:{TOKEN.pattern})")  # one that has a key
CLAIMS = [
    *("0", "1", "-1", "2.5", "3", "1500", "2147483648", "9223372036854775808", "1e400", "9" * 5000),
    *("null", "true", "NaN", "[]", "{}", "[" * 10**5, "", ",", '"x"', '"2"', r'"\ud800"'),
    *("1" + "0" * 400, '"labels"', '"pixels"', '"head.bias"'),
    *(f'"{dtype}"' for dtype in ("U8", "I8", "BOOL", "F32", "F64", "BF16", "C64", "F8_E5M2", "F4")),
]
DTYPES = {"F32": np.float32, "U8": np.uint8}
LENGTHS = [length.to_bytes(8, "little") for length in (0, 1, 2**16, 2**31, 2**63, 2**64 - 1)]

# what is written in place of which token; of the metadata, or else of what is said of the tensors
Claim = tuple[bool, int, str]
Damage = tuple[Sequence[Claim], Sequence[Edit]]
_CLAIM = st.tuples(st.booleans(), st.integers(0, 2**16 - 1), st.sampled_from(CLAIMS))
DAMAGE: SearchStrategy[Damage] = st.tuples(
    st.lists(_CLAIM, min_size=1, max_size=2), st.just(())
) | st.tuples(st.just(()), some_edits(LENGTHS))


def damaged(content: bytes, damage: Damage) -> bytes:
    """A safetensors file with a changed header, or with other edits."""
    claims, edits = damage
    if claims:
        content = _claiming(content, claims)
    return edited(content, range(8 + int.from_bytes(content[:8], "little")), edits)


def _claiming(content: bytes, claims: Sequence[Claim]) -> bytes:
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    metadata = header.pop("__metadata__")
    name = next(name for name, text in metadata.items() if text.startswith("{"))
    tensors = json.dumps(header)
    for in_metadata, which, instead in claims:
        if in_metadata:
            metadata[name] = reworded(metadata[name], VALUE, which, instead)
        else:
            tensors = reworded(tensors, TOKEN, which, instead)
    said = f'{{"__metadata__": {json.dumps(metadata)}, {tensors[1:]}'.encode()
    return len(said).to_bytes(8, "little") + said + content[end:]


def reworded(text: str, pattern: re.Pattern[str], which: int, instead: str) -> str:
    tokens = [*pattern.finditer(text)]
    token = tokens[which % len(tokens)]
    return text[: token.start()] + instead + text[token.end() :]


def what_it_says(file: bytes) -> tuple[dict[str, str], dict[str, np.ndarray[Any, Any]]]:
    """The metadata and the arrays of a safetensors file that has only float32 and uint8."""
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:start])
    metadata, arrays = header.pop("__metadata__"), dict[str, np.ndarray[Any, Any]]()
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = np.frombuffer(file[start + begin : start + end], DTYPES[entry["dtype"]])
        arrays[name] = values.reshape(entry["shape"])
    return metadata, arrays


@contextmanager
def memory(room: int) -> Iterator[None]:
    """Limit the block's memory to this many bytes more than the process has now (on Linux only).

    tracemalloc would see nothing of what torch and safetensors allocate.
    """
    if sys.platform != "linux":
        yield
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
