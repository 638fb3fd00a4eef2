"""Convert picture files to images like those of a data set.

MNIST's own images were "normalized to fit in a 20x20 pixel box while preserving their aspect
ratio", with grey levels from antialiasing, and "centered in a 28x28 image by computing the center
of mass of the pixels" (LeCun, Cortes and Burges, The MNIST database). The files confirm it: the
longer side of each glyph's box is 20 pixels, and its centre of mass lies at 14 ± 0.5. In
scikit-learn's digits each glyph is as high as the image, with its box in the middle.
T rows of D pixels; H, W the height and width of a picture
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mnist_lstm import UserError

Pixels = NDArray[np.uint8]
Grey = NDArray[np.floating[Any]]

SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")
LONGEST = 560  # pixels of a side that are looked at: 20 for each of the box's, and specks fade
LARGEST = 100_000_000  # pixels of a picture that are decoded: 0.4 GB
CONTRAST = 16  # grey levels of 255 that ink must stand out by
NOISE = 3  # standard deviations of the background that are taken for background
EDGE = 0.1  # share of the ink's strength at which the glyph ends
BLANK = "blank: all of it is of about the same grey"


@dataclass(frozen=True)
class Form:
    """The size of a data set's images, `rows` by `pixels`, and the place of a glyph in them.

    A glyph fits a square of `box` pixels and is centred by its mass or by its box. If `box` is
    None, the whole picture is scaled. `light` is True if glyphs are light on dark, and None
    if that is unknown.
    """

    rows: int
    pixels: int
    box: int | None = None
    centred: Literal["mass", "box"] = "mass"
    light: bool | None = True


def form_of(dataset: str, rows: int, pixels: int) -> Form:
    """The form of the images of a data set, by its name and their size."""
    match dataset:
        case "mnist":
            return Form(rows, pixels, box=max(1, round(min(rows, pixels) * 20 / 28)))
        case "digits":
            return Form(rows, pixels, box=rows, centred="box")
        case "fashion-mnist" | "kmnist":
            return Form(rows, pixels)
        case _:
            return Form(rows, pixels, light=None)


def files_in(path: Path) -> list[Path]:
    """The file itself, or the PNG and JPEG files of a folder, sorted by name.

    Raises UserError if the path does not exist, or is a folder without pictures.
    """
    if not path.is_dir():
        if path.exists():
            return [path]
        raise UserError(f"{path}: no such file or folder")
    try:
        listed = sorted(path.iterdir())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    found = [file for file in listed if file.suffix.lower() in SUFFIXES and file.is_file()]
    if not found:
        raise UserError(f"{path}: no PNG or JPEG files in this folder (its subfolders aside)")
    return found


def read(path: Path, form: Form) -> Pixels:
    """Read a PNG or JPEG file into a data set's form, (T, D).

    Raises UserError if the file cannot be read, or if the picture is empty.
    """
    try:
        return arrange(_decode(path), form)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def arrange(grey: Grey, form: Form) -> Pixels:
    """Convert a picture to a data set's form: grey levels 0–255 (H, W) -> (T, D).

    Raises UserError if nothing stands out from the background.
    """
    return _whole(grey, form) if form.box is None else _glyph(grey, form, form.box)


def enlarged(pixels: Pixels, factor: int) -> Image.Image:
    """Enlarge an image (T, D): each pixel becomes a square of `factor` by `factor`."""
    return Image.fromarray(pixels.repeat(factor, axis=0).repeat(factor, axis=1))


def _decode(path: Path) -> Grey:
    """Read the grey levels 0–255 of a picture file, turned upright, (H, W)."""
    too_large = UserError(f"has more than {LARGEST:,} pixels; make it smaller")
    try:
        with warnings.catch_warnings():  # Pillow warns of some that are not too large here
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
        with image:
            if image.width * image.height > LARGEST:
                raise too_large
            image.draft("L", (LONGEST, LONGEST))  # a large JPEG decodes smaller, in less time
            image.load()
            return _grey(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise UserError("not a PNG or JPEG image") from None
    except Image.DecompressionBombError:
        raise too_large from None
    except OSError as error:
        # Pillow's own say of a file what is wrong with it; the system's have a number
        reason = error.strerror or f"damaged ({' '.join(str(error).split())})"
        raise UserError(reason) from None
    except (SyntaxError, ValueError, EOFError, IndexError) as error:  # of a damaged one, too
        raise UserError(f"damaged ({' '.join(str(error).split())})") from None


def _grey(image: Image.Image) -> Grey:
    """Grey levels 0–255 of an image of any mode, (H, W)."""
    if image.mode.startswith("I"):  # 16 bits
        return _smaller(np.asarray(image, dtype=np.float32) / 257)
    if image.has_transparency_data:
        colour, alpha = image.convert("RGBA").convert("L"), image.convert("RGBA").getchannel("A")
        level, opaque = (np.asarray(part, dtype=np.float32) for part in (colour, alpha))
        share = opaque / 255
        return _smaller(level * share + _behind(level, share) * (1 - share))
    return _smaller(np.asarray(image.convert("L"), dtype=np.float32))


def _behind(level: Grey, share: Grey) -> float:
    """The grey level to put behind a transparent picture, so that its ink stands out."""
    if not share.any():
        return 0.0
    if share.mean() > 0.5:
        return float(np.median(level[share > 0.5]))
    return 255.0 if (level * share).sum() < 127.5 * share.sum() else 0.0


def _smaller(grey: Grey) -> Grey:
    """Shrink a large picture by averaging squares of pixels."""
    factor = -(-max(grey.shape) // LONGEST)
    if factor == 1:
        return grey
    return np.asarray(Image.fromarray(grey).reduce(factor), dtype=np.float32)


def _whole(grey: Grey, form: Form) -> Pixels:
    """The whole picture, scaled to fit, on a background of its border's median grey level."""
    border = float(np.median(_border(grey)))
    if form.light and border > 127.5:
        grey, border = 255 - grey, 255 - border
    if grey.max() - grey.min() < CONTRAST:
        raise UserError(BLANK)
    scaled = _scaled(grey, min(form.rows / grey.shape[0], form.pixels / grey.shape[1]))
    rows, pixels = scaled.shape
    image = np.full((form.rows, form.pixels), border, dtype=np.float32)
    top, left = (form.rows - rows) // 2, (form.pixels - pixels) // 2
    image[top : top + rows, left : left + pixels] = scaled
    return _bytes(image)


def _glyph(grey: Grey, form: Form, box: int) -> Pixels:
    """The glyph of a picture, scaled to the box and centred."""
    apart, noise = _apart(grey)
    ink = _ink(apart, noise)
    glyph = _cut(apart, apart > 0)
    is_in_form = grey.shape == (form.rows, form.pixels) and max(glyph.shape) == box and not noise
    if not is_in_form:  # else it only has to be centred, and keeps its pixels
        glyph = _cut(ink, ink > EDGE)
        scale = min(box / glyph.shape[0], min(box, form.pixels) / glyph.shape[1])
        glyph = _scaled(glyph, scale).clip(0, 1)
        glyph *= 255 / glyph.max()  # a thin line is pale when it has been made smaller
    top = _place(glyph.sum(axis=1), form.rows, form.centred)
    left = _place(glyph.sum(axis=0), form.pixels, form.centred)
    image = np.zeros((form.rows, form.pixels), dtype=np.float32)
    image[top : top + glyph.shape[0], left : left + glyph.shape[1]] = glyph
    return _bytes(image)


def _apart(grey: Grey) -> tuple[Grey, float]:
    """The distance of each pixel from the background in grey levels, and its noise.

    The background is a plane fitted to the border's pixels, since light on paper is seldom even.
    Border pixels far from their median are left out of the fit, since a glyph may touch the border.
    """
    ground, noise = _background(grey)
    apart = grey - ground
    apart[np.abs(apart) < 0.01] = 0  # what rounding leaves
    return (-apart if -apart.min() > apart.max() else apart), noise  # dark on light, or light


def _ink(apart: Grey, noise: float) -> Grey:
    """These distances as a fraction (0–1) of the strongest ink's, with the noise removed.

    Raises UserError if there is no ink.
    """
    low, most = NOISE * noise, float(apart.max())
    if most < 1:
        raise UserError(BLANK)
    high = float(np.median(apart[apart > (low + most) / 2])) if most > low else 0.0
    needed = max(CONTRAST, 2 * noise)
    if high - low < needed:
        raise UserError(
            f"too little contrast: what is on it stands out by {max(high - low, 0):.0f} of 255 "
            f"grey levels, and {needed:.0f} are needed"
        )
    return ((apart - low) / (high - low)).clip(0, 1)


def _cut(picture: Grey, seen: NDArray[Any]) -> Grey:
    """Crop a picture to the smallest box that holds all of its ink."""
    top, bottom = _ends(np.flatnonzero(seen.any(axis=1)))
    left, right = _ends(np.flatnonzero(seen.any(axis=0)))
    return picture[top:bottom, left:right]


def _background(grey: Grey) -> tuple[Grey, float]:
    """The background of all pixels (H, W), and the standard deviation of its noise."""
    height, width = grey.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    plane = np.stack([np.ones_like(x), x, y], axis=-1).astype(np.float32)  # (H, W, 3)
    levels, places = _border(grey), _border(plane)
    apart = np.abs(levels - np.median(levels))
    kept = apart <= max(3 * _deviation(levels - np.median(levels)), 1)
    weights, *_ = np.linalg.lstsq(places[kept], levels[kept], rcond=None)
    residuals = levels[kept] - places[kept] @ weights
    return (plane @ weights).astype(np.float32), _deviation(residuals)


def _deviation(residuals: Grey) -> float:
    """A standard deviation robust to outliers: 1.4826 times the median absolute value."""
    deviation = 1.4826 * float(np.median(np.abs(residuals)))
    return deviation if deviation > 0.01 else 0.0  # what rounding leaves


def _border(picture: Grey) -> Grey:
    """The pixels of a border, 1/28 of the sides wide: (H, W, …) -> (pixels, …)."""
    wide = max(1, min(picture.shape[:2]) // 28)
    inner = np.zeros(picture.shape[:2], dtype=bool)
    inner[wide:-wide, wide:-wide] = True
    return picture[~inner]


def _ends(found: NDArray[Any]) -> tuple[int, int]:
    """The first index, and one more than the last."""
    return int(found[0]), int(found[-1]) + 1


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
    return np.stack(images) if images else np.zeros((0, form.rows, form.pixels), dtype=np.uint8)
