"""Check requests to the served model. A cast alone would make 0 of pixels such as 256 and 0.5.

N images, T rows of D pixels
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from mnist_lstm import UserError

HOST = re.compile(r"(\*\.)?[\w.-]+")  # the name of a host, or of all below one
TAKES = "whole numbers from 0 to 255"
PICTURE = 40_000_000  # bytes of a picture file
LARGEST = 10_000  # images at once: 10,000 of MNIST's take some seconds


def most_bytes(rows: int, pixels: int) -> int:
    """The largest number of bytes that LARGEST images take as JSON that Python writes."""
    row = pixels * len("255, ") + len(", ")  # brackets are as long as the last comma and space
    return LARGEST * (rows * row + len(", ")) + len('{"inputs": []}')


class Unacceptable(Exception):
    """The request cannot be answered. The message says why, and what the request must be.

    `kind` is what is wrong in a few words, `status` that of the answer.
    """

    def __init__(self, message: str, kind: str = "images", status: int = 400) -> None:
        super().__init__(message)
        self.kind, self.status = kind, status


def check_hosts(names: Iterable[str]) -> None:
    """Raises UserError for what is no name of a host, such as an address with a port."""
    for name in names:
        if not HOST.fullmatch(name):
            raise UserError(
                f"a host has a name such as digits.example.org, without a port, not {name!r}"
            )


def wishes(query: Iterable[tuple[str, str]]) -> tuple[bool, bool]:
    """Whether the query of /predict asks for the belief after each row, and for the pixels.

    Raises Unacceptable.
    """
    known = {("belief", "rows"): False, ("image", "pixels"): False}
    for name, value in query:
        if (name, value) not in known:
            what = json.dumps(f"{name}={value}"[:60])
            raise Unacceptable(
                f"the query may have belief=rows and image=pixels, has {what}", "query"
            )
        known[name, value] = True
    rows, pixels = known.values()
    return rows, pixels


def check(body: bytes, rows: int, pixels: int) -> list[list[list[int]]]:
    """Parse the body of a request: a batch of images of `rows` rows of `pixels` pixels.

    Raises Unacceptable.
    """
    form = f'{{"inputs": [images]}}, an image being {rows} rows of {pixels} pixels, {TAKES}'
    try:
        request = json.loads(body, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise Unacceptable(f"the body is not UTF-8 text; it must be JSON: {form}") from None
    except RecursionError:
        raise Unacceptable(f"the JSON is nested too deep; it must be {form}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        what = f"is not JSON ({where})" if body.strip() else "is empty"
        raise Unacceptable(f"the body {what}; it must be {form}") from None
    except ValueError as error:
        raise Unacceptable(f"{error}; pixels are {TAKES}") from None
    if not isinstance(request, dict) or list(request) != ["inputs"]:
        is_what = f"the keys {list(request)}" if isinstance(request, dict) else _kind(request)
        raise Unacceptable(f"the JSON must be {form}; it is {is_what[:200]}")
    images: list[list[list[int]]] = request["inputs"]
    _check_images(images, rows, pixels)
    return images


def _check_images(images: Any, rows: int, pixels: int) -> None:
    expected = f"(N, {rows}, {pixels}): N images of {rows} rows of {pixels} pixels"
    depth = _depth(images)
    if depth == 2:
        hint = "; put a single image into brackets of its own: [image]"
        raise Unacceptable(f"inputs must have the shape {expected}; it has depth 2{hint}")
    if depth != 3:
        what = (
            "is empty" if images == [] else f"has depth {depth}" if depth else f"is {_kind(images)}"
        )
        raise Unacceptable(f"inputs must have the shape {expected}; it {what}")
    if len(images) > LARGEST:
        raise Unacceptable(f"inputs has {len(images):,} images; send at most {LARGEST:,} at once")
    for at, image in enumerate(images):
        if not isinstance(image, list) or len(image) != rows:
            has = f"has {len(image)}" if isinstance(image, list) else f"is {_kind(image)}"
            raise Unacceptable(f"inputs[{at}] must have {rows} rows; it {has}")
        for number, row in enumerate(image):
            if not isinstance(row, list) or len(row) != pixels:
                has = f"has {len(row)}" if isinstance(row, list) else f"is {_kind(row)}"
                raise Unacceptable(f"inputs[{at}][{number}] must have {pixels} pixels; it {has}")
            if set(map(type, row)) != {int} or min(row) < 0 or max(row) > 255:
                _refuse_pixel(at, number, row)


def _refuse_pixel(image: int, number: int, row: list[Any]) -> None:
    for at, pixel in enumerate(row):
        if type(pixel) is not int or not 0 <= pixel <= 255:
            is_what = _kind(pixel)
            hint = (
                ", without a point; multiply fractions of 1 by 255 and round"
                if isinstance(pixel, float)
                else ""
            )
            raise Unacceptable(
                f"inputs[{image}][{number}][{at}] is {is_what}; pixels are {TAKES}{hint}"
            )


def _depth(value: Any) -> int:
    """The depth of nested lists, following the first element of each."""
    depth = 0
    while isinstance(value, list):
        depth, value = depth + 1, value[0] if value else None
    return depth


def _kind(value: Any) -> str:
    """Describe a JSON value in a few words."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value}"[:30]
        case str():
            return f"the text {json.dumps(value[:30], ensure_ascii=False)}"
        case None:
            return "null"
        case list():
            return "a list" if value else "an empty list"
        case _:
            return "an object"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"the body has {name}, which is no JSON number")
