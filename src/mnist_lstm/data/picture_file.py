"""Read the grey levels of PNG and JPEG files: of any mode and size, in bounded memory.

H, W the height and width of a picture
"""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from mnist_lstm import UserError
from mnist_lstm.data.ground import Grey

SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")
LONGEST = 560  # pixels of a side that are looked at: 20 for each of the box's, and specks fade
LARGEST = 100_000_000  # pixels of a picture that are decoded: 0.4 GB
LONGEST_SIDE = 65_535  # pixels of a side, as JPEG has them at most
SMALL, SMALL_FILE = 64 * 64, 2**14  # pixels and bytes of a small picture
BAND = 4_000_000  # pixels that are turned into grey at once


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


def is_small(content: bytes) -> bool:
    """Whether this picture is read in about a millisecond. Only its header is looked at."""
    if len(content) > SMALL_FILE:
        return False
    try:
        with _opened(BytesIO(content)) as image:
            return image.width * image.height <= SMALL
    except UserError:
        return False


def decode(file: Path | BytesIO) -> Grey:
    """Read the grey levels 0–255 of a picture file, turned upright and made smaller, (H, W).

    Raises UserError, which does not name the file, if it cannot be read or is too large.
    """
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
