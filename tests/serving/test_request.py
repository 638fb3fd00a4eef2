"""Requests to the served model, and the messages for wrong ones."""

import json
from typing import Any

import pytest

from mnist_lstm.serving.request import Unacceptable, check

IMAGE = [[0, 128, 255], [1, 2, 3]]
FORM = '{"inputs": [images]}, an image being 2 rows of 3 pixels, whole numbers from 0 to 255'


def body(inputs: Any) -> bytes:
    return json.dumps({"inputs": inputs}).encode()


@pytest.mark.parametrize("images", [1, 1000])
def test_images_are_accepted(images: int) -> None:
    check(body([IMAGE] * images), 2, 3)


def with_pixel(pixel: Any) -> bytes:
    return body([IMAGE, [[0, 0, 0], [0, pixel, 0]]])


SHAPE = "inputs must have the shape (N, 2, 3): N images of 2 rows of 3 pixels; it "
WRONG = {
    "a single image": (body(IMAGE), f"{SHAPE}has depth 2; put a single image into brackets"),
    "one dimension": (body([1, 2]), f"{SHAPE}has depth 1"),
    "four dimensions": (body([[IMAGE]]), f"{SHAPE}has depth 4"),
    "no images": (body([]), f"{SHAPE}is empty"),
    "a number": (body(7), f"{SHAPE}is 7"),
    "text": (body("seven"), f'{SHAPE}is the text "seven"'),
    "a row too few": (body([IMAGE, IMAGE[:1]]), "inputs[1] must have 2 rows; it has 1"),
    "a ragged row": (body([[[1, 2, 3], [1, 2]]]), "inputs[0][1] must have 3 pixels; it has 2"),
    "a row of nothing": (body([[[1, 2, 3], None]]), "inputs[0][1] must have 3 pixels; it is null"),
    "256": (with_pixel(256), "inputs[1][1][1] is 256; pixels are whole numbers from 0 to 255"),
    "-1": (with_pixel(-1), "inputs[1][1][1] is -1; pixels are"),
    "a float": (
        with_pixel(0.5),
        "inputs[1][1][1] is 0.5; pixels are whole numbers from 0 to 255, without",
    ),
    "a whole float": (with_pixel(1.0), "inputs[1][1][1] is 1.0; pixels are"),
    "a string": (with_pixel("9"), 'inputs[1][1][1] is the text "9"; pixels are'),
    "true": (with_pixel(True), "inputs[1][1][1] is true; pixels are"),
    "nothing": (with_pixel(None), "inputs[1][1][1] is null; pixels are"),
    "a huge number": (with_pixel(10**4000), "inputs[1][1][1] is 1000"),
    "NaN": (with_pixel(float("nan")), "the body has NaN, which is no JSON number; pixels are"),
    "an empty body": (b"", f"the body is empty; it must be {FORM}"),
    "cut off": (body([IMAGE])[:-9], "the body is not JSON (line 1, column "),
    "not text": (b"\xff\xfe\x00", f"the body is not UTF-8 text; it must be JSON: {FORM}"),
    "deep": (b"[" * 100_000, f"the JSON is nested too deep; it must be {FORM}"),
    "no inputs": (b'{"instances": []}', f"the JSON must be {FORM}; it is the keys ['instances']"),
    "a list": (b"[[1]]", f"the JSON must be {FORM}; it is a list"),
    "too many": (body([IMAGE] * 10_001), "inputs has 10,001 images; send at most 10,000 at once"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_request_is_refused_with_a_reason(what: str) -> None:
    content, words = WRONG[what]
    with pytest.raises(Unacceptable) as error:
        check(content, 2, 3)
    assert str(error.value).startswith(words)
    assert len(str(error.value)) < 400
