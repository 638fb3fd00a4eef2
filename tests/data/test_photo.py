"""Pictures of any size, colours and polarity are converted to the data set's form."""

import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from mutations import DRAWN, fuzz
from PIL import ExifTags, Image

from mnist_lstm import UserError
from mnist_lstm.data import glyph
from mnist_lstm.data.photo import Pixels, arrange, form_of, read

MNIST = form_of("mnist", 28, 28)


@pytest.fixture
def seven() -> Pixels:
    """A 7 in MNIST's form: 20 pixels high, its centre of mass at 14."""
    image = np.zeros((28, 28), np.uint8)
    image[0:3, 0:14] = 255
    image[3:20, 10:13] = 255
    image[3:20, 13] = 90  # grey, as antialiasing leaves it
    mass = [np.arange(28) @ image.sum(axis=axis) / image.sum() for axis in (1, 0)]
    return np.roll(image, [round(14 - one) for one in mass], axis=(0, 1))


def of(image: np.ndarray) -> Pixels:
    return arrange(np.asarray(image, dtype=np.float32), MNIST).pixels


def straightened(seven: Pixels) -> Pixels:
    """What a clean, large picture of it becomes: less slanted than it is."""
    return of(seven.repeat(7, axis=0).repeat(7, axis=1))


def alike(one: Pixels, other: Pixels) -> float:
    """The correlation of pixels: 1 if they are the same, 0.85 with edges half a pixel away."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def test_an_image_in_the_form_keeps_its_pixels(seven: Pixels) -> None:
    assert (of(seven) == seven).all()
    assert (of(255 - seven) == seven).all()


@pytest.mark.parametrize("shift", [(-3, 2), (-6, -4), (0, 3)])
def test_a_shifted_digit_is_centred(seven: Pixels, shift: tuple[int, int]) -> None:
    assert (of(np.roll(seven, shift, axis=(0, 1))) == seven).all()


@pytest.mark.parametrize("side", [20 * 7, 28 * 7, 60, 1500])
def test_size_and_place_do_not_matter(seven: Pixels, side: int) -> None:
    large = Image.fromarray(255 - seven).resize((side, side), Image.Resampling.BICUBIC)
    page = Image.new("L", (2 * side, side + 40), 255)
    page.paste(large, (30, 20))
    found = of(np.asarray(page))
    assert alike(found, straightened(seven)) > 0.85
    inked = found > 25
    assert max(np.ptp(np.flatnonzero(inked.any(axis=axis))) + 1 for axis in (0, 1)) == 20


def test_uneven_light_and_noise_are_background(seven: Pixels) -> None:
    noise = np.random.default_rng(0).normal(0, 4, (196, 196))
    paper = 170 + np.linspace(-40, 40, 196)[None] + noise
    found = of(paper - 0.5 * seven.repeat(7, axis=0).repeat(7, axis=1))
    assert alike(found, straightened(seven)) > 0.85
    assert not found[:4].any()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA", "P", "I;16", "clear", "white ink"])
def test_every_mode(tmp_path: Path, seven: Pixels, mode: str, suffix: str) -> None:
    ink = Image.fromarray(seven.repeat(7, axis=0).repeat(7, axis=1))
    match mode:
        case "I;16":
            image = Image.fromarray(np.asarray(ink).astype(np.uint16) * 257)
        case "clear" | "white ink":  # nothing but ink, on nothing
            image = Image.new("RGBA", ink.size, "white" if mode == "white ink" else "black")
            image.putalpha(ink)
        case _:
            image = Image.eval(ink, lambda level: 255 - level).convert(mode)
    path = tmp_path / f"seven.{suffix}"
    if suffix == "jpg":
        if mode not in ("L", "RGB"):
            pytest.skip("JPEG has no such mode")
        image.save(path, quality=80)
    else:
        image.save(path)
    assert alike(read(path, MNIST).pixels, straightened(seven)) > 0.85


def test_other_data_sets_have_forms_of_their_own(seven: Pixels) -> None:
    digits = form_of("digits", 8, 8)
    found = arrange(seven.astype(np.float32), digits).pixels
    assert found.shape == (8, 8)
    assert found[0].any()
    assert found[-1].any()
    fashion = form_of("fashion-mnist", 28, 28)
    assert (arrange(seven.astype(np.float32), fashion).pixels == seven).all()
    assert (arrange(255 - seven.astype(np.float32), fashion).pixels == seven).all()
    own = form_of("own", 12, 9)
    ramp = np.linspace(0, 200, 12)[:, None].repeat(9, axis=1)
    assert (arrange(ramp.astype(np.float32), own).pixels == ramp.round()).all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"text", "not a PNG or JPEG image"), (b"", "not a PNG or JPEG image")],
)
def test_a_file_that_is_not_a_picture_is_refused(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"one.png: {reason}"):
        read(path, MNIST)


def test_a_picture_that_shows_nothing_is_refused(seven: Pixels) -> None:
    with pytest.raises(UserError, match="blank: all of it is of about the same grey"):
        of(np.full((30, 40), 200))
    with pytest.raises(UserError, match=r"too little contrast: .* 16 are needed"):
        of(200 - seven / 32)
    with pytest.raises(UserError, match=r"blank|too little contrast"):
        of(np.random.default_rng(0).normal(128, 20, (100, 100)))


def odd(what: str) -> np.ndarray:
    match what:
        case "two lines, three rows apart":
            picture = np.full((56, 56), 255)
            picture[[28, 31], 11:45] = 0
        case "more ink than ground":
            picture = np.zeros((2, 11))
            picture[0, 1:4] = picture[1, :4] = 255
        case "nothing but specks":
            picture = np.full((12, 12), 208)
            picture[4:7, 6:9] = 158
            for ink, place in {106: (3, 2), 76: (5, 1), 141: (6, 9)}.items():
                picture[place] = ink
            picture[[0, 1, 2, 3, 10, 11], [11, 11, 11, 11, 0, 0]] = 139, 139, 139, 76, 141, 76
        case "a blot with a slanted scratch":
            y, x = np.indices((13, 12))
            around = (np.abs(x - 8) <= 2) & (np.abs(y - 3.5) + np.abs(x - 8) <= 4)
            picture = np.where(around, 255, 0)
            picture[[3, 4, 5], [9, 8, 7]] = 0
        case "two columns":
            picture = np.full((5, 2), 84)
            picture[3:] = [[84, 255], [0, 0]]
    return picture


@pytest.mark.parametrize(
    "what",
    [
        "two lines, three rows apart",
        "more ink than ground",
        "nothing but specks",
        "a blot with a slanted scratch",
        "two columns",
    ],
)
def test_what_is_odd_is_read_or_refused(what: str) -> None:
    with suppress(UserError):
        assert of(odd(what)).any()


@fuzz(250)
@given(DRAWN)
def test_no_drawing_is_a_fault(picture: np.ndarray) -> None:
    with suppress(UserError):
        assert of(picture).any()


def dashes() -> np.ndarray:
    """A picture of 630 short lines, each long enough for a part of a ruled line."""
    picture = np.full((560, 560), 255)
    for left in range(1, 507, 58):
        picture[2:556:8, left : left + 53] = picture[3:556:8, left : left + 53] = 0
    return picture


def rings() -> np.ndarray:
    """A picture of 34 rings, each of which may be the edge of a badge."""
    y, x = np.indices((560, 560))
    away = np.hypot(y - 280, x - 280)
    return np.where((away % 8 < 2) & (away < 275), 0, 255)


@pytest.mark.parametrize(
    ("picture", "step", "most"),
    [(dashes(), "_fitted", 4 * glyph.SEGMENTS), (rings(), "_things", 1 + glyph.NESTED)],
    ids=["dashes", "rings"],
)
def test_the_work_for_a_picture_has_a_bound(
    monkeypatch: pytest.MonkeyPatch, picture: np.ndarray, step: str, most: int
) -> None:
    done, counted = getattr(glyph, step), list[None]()
    monkeypatch.setattr(glyph, step, lambda *given: counted.append(None) or done(*given))
    with suppress(UserError):
        of(picture)
    assert most // 2 <= len(counted) <= most


def on_paper(seven: Pixels) -> np.ndarray:
    """A photograph of it: 400 by 400, paper 230, ink 40, noise 4."""
    ink = np.asarray(Image.fromarray(seven).resize((280, 280), Image.Resampling.BICUBIC)) / 255
    noise = np.random.default_rng(0).normal(0, 4, (400, 400))
    return 230 - 190 * np.pad(ink, 60) + noise


def soiled(page: np.ndarray, what: str) -> np.ndarray:
    y, x = np.indices(page.shape)
    match what:
        case "one dark pixel":
            page[8, 390] = 40
        case "specks":
            for size, place in ((2, 20), (7, 350), (12, 380)):
                page[place : place + size, 30 : 30 + size] = 40
        case "ruled":
            page[::40] = np.minimum(page[::40], 100)
        case "squared, as dark as the ink":
            page[::30], page[:, ::30] = 40, 40
        case "a shadow":
            page[x + y > 390] *= 0.5
        case "a vignette":
            page *= 1 - 0.8 * np.hypot(x / 200 - 1, y / 200 - 1) ** 2 / 2
        case "a frame":
            for edge in (slice(30, 36), slice(364, 370)):
                page[edge, 30:370], page[30:370, edge] = 40, 40
        case "a badge":
            page = np.pad(270 - page, 60, constant_values=230)
        case "a desk":
            page = np.pad(page, 60, constant_values=60)
    return page


@pytest.mark.parametrize(
    "what",
    [
        "one dark pixel",
        "specks",
        "ruled",
        "squared, as dark as the ink",
        "a shadow",
        "a vignette",
        "a frame",
        "a badge",
        "a desk",
    ],
)
def test_what_is_around_the_glyph_is_not_read(seven: Pixels, what: str) -> None:
    clean, dirty = of(on_paper(seven)), arrange(soiled(on_paper(seven), what), MNIST)
    assert alike(clean, straightened(seven)) > 0.85
    assert alike(dirty.pixels, clean) > 0.85
    assert dirty.doubts == ()


def test_what_is_doubtful_is_said(seven: Pixels) -> None:
    two = np.hstack([on_paper(seven), on_paper(seven)])
    assert arrange(two, MNIST).doubts == ("2 large things are on it, and the largest is read",)
    blot = np.full((400, 400), 230.0)
    blot[100:300, 120:280] = 40
    assert arrange(blot, MNIST).doubts == ("what is left is a filled shape, unlike a digit",)


@pytest.mark.parametrize(
    "exif", [b"II*\0", b"MM\0*\0\0\0\x08\0\x05", b"nonsense"], ids=["short", "cut", "other"]
)
def test_damaged_exif_data_are_no_damage_to_the_picture(
    tmp_path: Path, seven: Pixels, exif: bytes
) -> None:
    path = tmp_path / "seven.png"
    Image.fromarray(seven).save(path, exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (read(path, MNIST).pixels == of(seven)).all()


def test_a_picture_is_turned_as_its_exif_data_say(tmp_path: Path, seven: Pixels) -> None:
    path, exif = tmp_path / "seven.png", Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera was held upright: turn it clockwise
    Image.fromarray(np.rot90(seven)).save(path, exif=exif)
    assert (read(path, MNIST).pixels == of(seven)).all()
