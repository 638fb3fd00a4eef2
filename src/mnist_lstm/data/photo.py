"""Convert picture files to images like those of a data set: data/glyph finds what is on them.

MNIST's own images were "normalized to fit in a 20x20 pixel box while preserving their aspect
ratio", with grey levels from antialiasing, and "centered in a 28x28 image by computing the center
of mass of the pixels" (LeCun, Cortes and Burges, The MNIST database). The files confirm it: the
longer side of each glyph's box is 20 pixels, and its centre of mass lies at 14 ± 0.5. In
scikit-learn's digits each glyph is as high as the image, with its box in the middle.
T rows of D pixels; H, W the height and width of a picture
"""

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from mnist_lstm import UserError
from mnist_lstm.data.glyph import BLANK, CONTRAST, EDGE, cut, find
from mnist_lstm.data.ground import Grey

Pixels = NDArray[np.uint8]

SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")
LONGEST = 560  # pixels of a side that are looked at: 20 for each of the box's, and specks fade
LARGEST = 100_000_000  # pixels of a picture that are decoded: 0.4 GB
LONGEST_SIDE = 65_535  # pixels of a side, as JPEG has them at most
SMALL, SMALL_FILE = 64 * 64, 2**14  # pixels and bytes of a small picture
BAND = 4_000_000  # pixels that are turned into grey at once
SLANT = 0.13  # pixels to the right for each pixel up, in the mean of MNIST's training images


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


def is_small(content: bytes) -> bool:
    """Whether read_bytes needs about a millisecond for this picture. Only its header is read."""
    if len(content) > SMALL_FILE:
        return False
    try:
        with _opened(BytesIO(content)) as image:
            return image.width * image.height <= SMALL
    except UserError:
        return False


def _reading(file: Path | BytesIO, form: Form) -> Reading:
    try:
        return arrange(_decode(file), form)
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


def _decode(file: Path | BytesIO) -> Grey:
    """Read the grey levels 0–255 of a picture file, turned upright, (H, W)."""
    with _opened(file) as image:
        if max(image.size) > LONGEST_SIDE:
            raise UserError(f"has a side of more than {LONGEST_SIDE:,} pixels; make it smaller")
        image.draft("L", (LONGEST, LONGEST))  # a large JPEG decodes smaller, in less time
        image.load()
        return _upright(_grey(image), image)


@contextmanager
def _opened(file: Path | BytesIO) -> Iterator[ImageFile.ImageFile]:
    """Open a picture file: its header is read. What is wrong with the file is a UserError."""
    too_large = UserError(f"has more than {LARGEST:,} pixels; make it smaller")
    try:
        with warnings.catch_warnings():  # Pillow warns of some that are not too large here
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file, formats=FORMATS)
        with image:
            if image.width * image.height > LARGEST:
                raise too_large
            yield image
    except UnidentifiedImageError:
        raise UserError("not a PNG or JPEG image") from None
    except Image.DecompressionBombError:
        raise too_large from None
    except OSError as error:
        # Pillow's OSErrors have only a message; the system's have `strerror`
        reason = error.strerror or f"damaged ({' '.join(str(error).split())})"
        raise UserError(reason) from None
    # Pillow raises these for damaged files, too
    except (SyntaxError, ValueError, EOFError, IndexError) as error:
        raise UserError(f"damaged ({' '.join(str(error).split())})") from None


def _grey(image: Image.Image) -> Grey:
    """Grey levels 0–255 of an image of any mode, made smaller, (H, W).

    It is done in bands, so that a large picture is in the memory once, as it was decoded.
    """
    factor = -(-max(image.size) // LONGEST)
    if factor == 1 and image.mode in ("L", "RGB") and not image.has_transparency_data:
        return np.asarray(image.convert("L"), dtype=np.float32)  # the same, in less time
    high = max(1, BAND // (image.width * factor)) * factor
    bands = [
        _band(image.crop((0, top, image.width, min(top + high, image.height))), factor)
        for top in range(0, image.height, high)
    ]
    level, opaque = (np.concatenate(part) for part in zip(*bands, strict=True))
    return level + _behind(level, opaque) * (1 - opaque)


def _band(image: Image.Image, factor: int) -> tuple[Grey, Grey]:
    """What shows of a picture's grey levels, and how opaque it is (0–1): means of squares."""
    level: Grey
    opaque = None
    if image.mode.startswith("I"):  # 16 bits
        level = np.asarray(image, dtype=np.float32) / 257
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        opaque = np.asarray(image.getchannel("A"), dtype=np.float32) / 255
        level = np.asarray(image.convert("L"), dtype=np.float32) * opaque
    else:
        level = np.asarray(image.convert("L"), dtype=np.float32)
    shares = np.ones_like(level) if opaque is None else opaque
    level, shares = (
        np.asarray(Image.fromarray(part).reduce(factor), dtype=np.float32)
        for part in (level, shares)
    )
    return level, shares


def _behind(shown: Grey, opaque: Grey) -> float:
    """The grey level to put behind a transparent picture, so that its ink stands out."""
    if not opaque.any():
        return 0.0
    if opaque.mean() > 0.5:
        return float(np.median(shown[opaque > 0.5] / opaque[opaque > 0.5]))
    return 255.0 if shown.sum() < 127.5 * opaque.sum() else 0.0


def _upright(grey: Grey, image: Image.Image) -> Grey:
    """The grey levels turned as the picture's EXIF data say."""
    orientation = 1
    with warnings.catch_warnings(), suppress(OSError, SyntaxError, ValueError, struct.error):
        warnings.simplefilter("ignore")  # damaged EXIF data are no damage to the picture
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation == 1:
        return grey
    small = Image.fromarray(grey)
    small.getexif()[ExifTags.Base.Orientation] = orientation
    return np.asarray(ImageOps.exif_transpose(small), dtype=np.float32)


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


def _glyph(grey: Grey, form: Form, box: int) -> Reading:
    """The glyph of a picture, scaled to the box and centred."""
    glyph = _in_form(grey, form, box)
    doubts: tuple[str, ...] = ()
    if glyph is None:
        found = find(grey)
        glyph, doubts = found.ink, found.doubts
        if form.centred == "mass":
            glyph = _less_slanted(glyph)
        scale = min(box / glyph.shape[0], min(box, form.pixels) / glyph.shape[1])
        glyph = _scaled(glyph, scale).clip(0, 1)
        glyph *= 255 / glyph.max()  # a thin line is pale when it has been made smaller
    top = _place(glyph.sum(axis=1), form.rows, form.centred)
    left = _place(glyph.sum(axis=0), form.pixels, form.centred)
    image = np.zeros((form.rows, form.pixels), dtype=np.float32)
    image[top : top + glyph.shape[0], left : left + glyph.shape[1]] = glyph
    return Reading(_bytes(image), doubts)


def _in_form(grey: Grey, form: Form, box: int) -> Grey | None:
    """The glyph of a picture that is in the form, but for its place: it keeps its pixels."""
    ground = np.median(_border(grey))
    apart = np.abs(grey - ground)
    even = np.median(np.abs(_border(grey) - ground)) == 0
    if grey.shape != (form.rows, form.pixels) or not even or apart.max() < CONTRAST:
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
    return np.stack(images) if images else np.zeros((0, form.rows, form.pixels), dtype=np.uint8)
