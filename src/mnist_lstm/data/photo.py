"""Convert pictures to images like those of a data set: data/glyph finds what is on them.

MNIST's own images were "normalized to fit in a 20x20 pixel box while preserving their aspect
ratio", with grey levels from antialiasing, and "centered in a 28x28 image by computing the center
of mass of the pixels" (LeCun, Cortes and Burges, The MNIST database). The files confirm it: the
longer side of each glyph's box is 20 pixels, and its centre of mass lies at 14 ± 0.5. In
scikit-learn's digits each glyph is as high as the image, with its box in the middle.
T rows of D pixels; H, W the height and width of a picture
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_lstm import UserError
from mnist_lstm.data.glyph import BLANK, CONTRAST, EDGE, cut, find
from mnist_lstm.data.ground import Grey
from mnist_lstm.data.picture_file import decode

Pixels = NDArray[np.uint8]

SLANT = 0.13  # pixels to the right for each pixel up, in the mean of MNIST's training images


@dataclass(frozen=True)
class Form:
    """The size of a data set's images, `rows` by `columns`, and the place of a glyph in them.

    A glyph fits a square of `box` pixels and is centred by its mass or by its box. If `box` is
    None, the whole picture is scaled. `light` is True if glyphs are light on dark, and None
    if that is unknown.
    """

    rows: int
    columns: int
    box: int | None = None
    centred: Literal["mass", "box"] = "mass"
    light: bool | None = True


def form_of(dataset: str, rows: int, columns: int) -> Form:
    """The form of the images of a data set, by its name and their size."""
    match dataset:
        case "mnist":
            return Form(rows, columns, box=max(1, round(min(rows, columns) * 20 / 28)))
        case "digits":
            return Form(rows, columns, box=rows, centred="box")
        case "fashion-mnist" | "kmnist":
            return Form(rows, columns)
        case _:
            return Form(rows, columns, light=None)


@dataclass(frozen=True)
class Reading:
    """A picture in a data set's form, (T, D), and what makes it doubtful, in words."""

    pixels: Pixels
    doubts: tuple[str, ...] = ()


def read(path: Path, form: Form) -> Reading:
    """Read a PNG or JPEG file into a data set's form.

    Raises UserError if the file cannot be read, or if the picture is empty.
    """
    try:
        return _reading(path, form)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read_bytes(content: bytes, form: Form) -> Reading:
    """Read the content of a PNG or JPEG file into a data set's form, as `read` reads the file.

    Raises UserError, as `read` does, but with no name in front.
    """
    return _reading(BytesIO(content), form)


def _reading(file: Path | BytesIO, form: Form) -> Reading:
    try:
        return arrange(decode(file), form)
    except MemoryError:
        raise UserError("there is too little memory for it; make it smaller") from None


def arrange(grey: Grey, form: Form) -> Reading:
    """Convert a picture to a data set's form: grey levels 0–255 (H, W) -> (T, D).

    Raises UserError if nothing stands out from the background.
    """
    return Reading(_whole(grey, form)) if form.box is None else _glyph(grey, form, form.box)


def enlarged(pixels: Pixels, factor: int) -> Image.Image:
    """Enlarge an image (T, D): each pixel becomes a square of `factor` by `factor`."""
    return Image.fromarray(pixels.repeat(factor, axis=0).repeat(factor, axis=1))


def _whole(grey: Grey, form: Form) -> Pixels:
    """The whole picture, scaled to fit, on a background of its border's median grey level."""
    border = float(np.median(_border(grey)))
    if form.light and border > 127.5:
        grey, border = 255 - grey, 255 - border
    if grey.max() - grey.min() < CONTRAST:
        raise UserError(BLANK)
    scaled = _scaled(grey, min(form.rows / grey.shape[0], form.columns / grey.shape[1]))
    rows, pixels = scaled.shape
    image = np.full((form.rows, form.columns), border, dtype=np.float32)
    top, left = (form.rows - rows) // 2, (form.columns - pixels) // 2
    image[top : top + rows, left : left + pixels] = scaled
    return _bytes(image)


def _glyph(grey: Grey, form: Form, box: int) -> Reading:
    """The glyph of a picture, scaled to the box and centred."""
    glyph = _in_form(grey, form, box)
    doubts: tuple[str, ...] = ()
    if glyph is None:
        found = find(grey)
        glyph, doubts = found.ink, found.doubts
        if form.centred == "mass":
            glyph = _less_slanted(glyph)
        scale = min(box / glyph.shape[0], min(box, form.columns) / glyph.shape[1])
        glyph = _scaled(glyph, scale).clip(0, 1)
        glyph *= 255 / glyph.max()  # a thin line is pale when it has been made smaller
    top = _place(glyph.sum(axis=1), form.rows, form.centred)
    left = _place(glyph.sum(axis=0), form.columns, form.centred)
    image = np.zeros((form.rows, form.columns), dtype=np.float32)
    image[top : top + glyph.shape[0], left : left + glyph.shape[1]] = glyph
    return Reading(_bytes(image), doubts)


def _in_form(grey: Grey, form: Form, box: int) -> Grey | None:
    """The glyph of a picture that is in the form, but for its place: it keeps its pixels."""
    ground = np.median(_border(grey))
    apart = np.abs(grey - ground)
    even = np.median(np.abs(_border(grey) - ground)) == 0
    if grey.shape != (form.rows, form.columns) or not even or apart.max() < CONTRAST:
        return None
    glyph = cut(apart, apart > 0)
    return glyph if max(glyph.shape) == box else None


def _less_slanted(glyph: Grey) -> Grey:
    """The glyph sheared half of the way to the mean slant of MNIST's glyphs.

    A photograph is seldom straight. With all of the way, more digits were read wrong.
    """
    y, x = (axis - axis.ravel() @ glyph.ravel() / glyph.sum() for axis in np.indices(glyph.shape))
    shear = (-(x * y * glyph).sum() / max((y * y * glyph).sum(), 1e-9) - SLANT) / 2
    wide = int(abs(shear) * glyph.shape[0]) + 1
    padded = Image.fromarray(np.pad(glyph, ((0, 0), (wide, wide))))
    affine = (1, -shear, shear * glyph.shape[0] / 2, 0, 1, 0)
    sheared = padded.transform(
        padded.size, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC
    )
    ink = np.asarray(sheared, dtype=np.float32).clip(0, 1)
    return cut(ink, ink > EDGE)


def _border(picture: Grey) -> Grey:
    """The pixels of a border, 1/28 of the sides wide: (H, W, …) -> (pixels, …)."""
    wide = max(1, min(picture.shape[:2]) // 28)
    inner = np.zeros(picture.shape[:2], dtype=bool)
    inner[wide:-wide, wide:-wide] = True
    return picture[~inner]


def _scaled(picture: Grey, scale: float) -> Grey:
    """Resize a picture: average pixels to shrink it, interpolate to enlarge it."""
    height, width = (max(1, round(side * scale)) for side in picture.shape)
    if (height, width) == picture.shape:
        return picture  # which is in the data set's form already
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(picture).resize((width, height), method), dtype=np.float32)


def _place(profile: Grey, length: int, centred: str) -> int:
    """The first pixel of a glyph along one axis of the image, from its ink along that axis."""
    size = len(profile)
    if centred == "box":
        return (length - size) // 2
    mass = float(np.arange(size) @ profile / profile.sum())
    return int(np.clip(round(length / 2 - mass), 0, length - size))


def _bytes(image: Grey) -> Pixels:
    return image.clip(0, 255).round().astype(np.uint8)


def together(images: Sequence[Pixels], form: Form) -> Pixels:
    """Stack images (T, D) into one array (N, T, D), which may be empty."""
    return np.stack(images) if images else np.zeros((0, form.rows, form.columns), dtype=np.uint8)
