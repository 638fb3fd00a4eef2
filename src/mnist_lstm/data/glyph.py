"""Find the glyph in a picture: what was written, apart from paper, light, lines and dirt.

H, W the height and width of a picture; ink is the share (0–1) of the light that it takes away
"""

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Polynomial as Line
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull

from mnist_lstm import UserError
from mnist_lstm.data.ground import (
    DARKEST,
    TOUCHING,
    Grey,
    Mask,
    apart_from_ground,
    behind,
    is_dark_on_light,
)

# grey levels, of 255
CONTRAST = 16  # ink stands out by at least this
NOISE = 3  # so many standard deviations of the ground's noise still count as ground

# shares of the most ink in the picture
STRONG = 0.35  # what pieces of a glyph are made of
EDGE = 0.1  # where a glyph ends

# lines of ruled paper: shares of the picture's width or shorter side
THIN = 0.02  # a line is no wider
SEGMENT = 0.1  # each part of a line is at least so long
SEGMENTS = 200  # so many parts, the longest, are looked at: more than a page of squared paper has
COVERED = 0.85  # so much of the line's way across the picture has ink
STEEPEST = 0.3  # pixels up for each pixel along a line, at most

# pieces of a glyph: shares of its longer side, or of its area
SPECK = 0.05  # of the picture's longer side: a shorter thing is no glyph
ABOVE = 0.3  # a piece above or below is no further away
BESIDE = 0.12  # a piece beside it is no further away
AROUND = 0.08  # how far the soft edge of a glyph reaches
PIECE = 0.03  # of the area: a smaller thing is no piece
LARGE = 0.25  # of the area: a larger thing beside the glyph is a doubt

# a badge: a filled shape that is the ground of a glyph
SOLID = 0.7  # share of its box that it fills, with its holes
HOLES = 0.01  # share of it that its largest hole has
NESTED = 4  # number of badges in one another that are looked into

# a digit
FULLEST = 0.75  # share of its box that it fills at most
SLIM = 0.5  # ratio of its sides below which it may be fuller, as a 1 is
WIDEST = 1.6  # ratio of its width to its height, at most
LOOPS = 3  # number of its holes, at most

BLANK = "blank: all of it is of about the same grey"


@dataclass(frozen=True)
class Found:
    """The ink of a glyph (0–1), cropped to its box, and what makes it doubtful, in words."""

    ink: Grey
    doubts: tuple[str, ...]


def find(grey: Grey, badges: int = NESTED) -> Found:
    """Find the glyph of a picture of grey levels 0–255 (H, W), inside so many badges at most.

    Raises UserError if nothing stands out from the ground.
    """
    if np.ptp(grey) < 1:
        raise UserError(BLANK)
    if not is_dark_on_light(grey):
        grey = 255 - grey
    apart, ground, noise = apart_from_ground(grey)
    share = apart / np.maximum(ground, DARKEST)
    share = _without_lines(_without_lines(share).T).T
    labels, large = _things(share)
    main, framed = _main(labels, large)
    if badges and _is_badge(labels, main):
        return find(_filled_up(grey, labels == main), badges - 1)
    glyph, others = _pieces(labels, main, large, framed)
    _check_contrast(apart[glyph], noise)
    low = NOISE * noise / max(float(np.median(ground)), DARKEST)
    ink = ((share - low) / (np.percentile(share[glyph], 75) - low)).clip(0, 1)
    kept = _around(glyph, labels)
    return Found(cut(ink * kept, (ink > EDGE) & kept), _doubts(glyph, others))


def _without_lines(share: Grey) -> Grey:
    """The picture without the lines that cross it from side to side, as of ruled paper.

    A line is thin, long and straight. Where a stroke crosses it, the ink is not thin, and stays.
    """
    height, width = share.shape
    thin = max(1, round(THIN * min(share.shape)))
    most = np.sort(share, axis=None)[-max(1, thin * width // 4)]
    strong = share > STRONG / 2 * most  # a line is often broken where it is faint
    thick = _opened(strong, (thin + 1, 1))
    low = strong & ~thick
    low &= _opened(ndimage.maximum_filter(low, (3, 3)), (1, width // 16))
    seen = ndimage.maximum_filter(strong, (5, 3))
    labels, _ = ndimage.label(ndimage.maximum_filter(low, (3, 5)), TOUCHING)
    rest, columns = share.copy(), np.arange(width)
    for number, box in _longest(ndimage.find_objects(labels)):
        high, wide = _sides(box)
        if wide < SEGMENT * width or high > STEEPEST * wide + thin:
            continue
        y, x = np.nonzero((labels[box] == number) & low[box])
        line = _fitted(x + box[1].start, y + box[0].start, 1)
        strip, near = _strip(line(columns), thin, height)
        y, x = np.nonzero(low[strip] & near)
        if not x.size:
            continue  # it is no line, but two with a gap between them
        rows = np.rint(_fitted(x, y + strip.start, 2 if np.ptp(x) > width / 2 else 1)(columns))
        on = (rows >= 0) & (rows < height)
        if seen[rows[on].astype(int), columns[on]].sum() >= COVERED * width:
            strip, near = _strip(rows, thin, height)
            rest[strip][near & ~thick[strip]] = 0
    return rest


def _longest(boxes: list[tuple[slice, slice]]) -> list[tuple[int, tuple[slice, slice]]]:
    """The numbers and boxes of the widest parts: a picture of dashes has more than a thousand."""
    return sorted(enumerate(boxes, start=1), key=lambda part: -_sides(part[1])[1])[:SEGMENTS]


def _strip(rows: Grey, thin: int, height: int) -> tuple[slice, Mask]:
    """The strip of a picture in which a line lies, and what of it is no further than `thin` away.

    `rows` has the line's row in each column.
    """
    top, bottom = np.clip([rows.min() - thin, rows.max() + thin + 1], 0, height)
    strip = slice(int(top), int(np.ceil(bottom)))
    return strip, np.abs(np.arange(strip.start, strip.stop)[:, None] - rows) <= thin


def _fitted(x: NDArray[np.intp], y: NDArray[np.intp], degree: int) -> Line:
    """The polynomial that is nearest to points: of a lower degree if they have few columns."""
    return Line.fit(x, y, min(degree, len(np.unique(x)) - 1))


def _opened(strong: Mask, size: tuple[int, int]) -> Mask:
    return ndimage.maximum_filter(ndimage.minimum_filter(strong, size), size)


def _things(share: Grey) -> tuple[NDArray[np.int32], list[int]]:
    """Number the connected things on the picture, and tell which are large enough for a glyph.

    Strong is what has a share of the most ink; so specks that are darker than it are taken away.
    """
    side = SPECK * max(share.shape)
    share = share.copy()
    tail = max(1, round(side * side / 10))  # pixels that a glyph has at least
    while (most := np.partition(share, -tail, axis=None)[-tail]) > 0:
        strong = share > STRONG * most
        labels, _ = ndimage.label(strong, TOUCHING)
        boxes = ndimage.find_objects(labels)
        large = [n for n, box in enumerate(boxes, start=1) if max(_sides(box)) >= side]
        if large:
            return labels, large
        share[strong] = 0
    raise UserError(BLANK)


def _holds(one: tuple[slice, slice], other: tuple[slice, slice]) -> bool:
    return all(a.start <= b.start and b.stop <= a.stop for a, b in zip(one, other, strict=True))


def _sides(box: tuple[slice, slice]) -> tuple[int, int]:
    return box[0].stop - box[0].start, box[1].stop - box[1].start


def _main(labels: NDArray[np.int32], large: list[int]) -> tuple[int, set[int]]:
    """The largest thing, inside any frame, and the frames around it.

    A thing at the picture's border counts only if nothing else is there.
    """
    areas = np.bincount(labels.ravel())
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    inner = [thing for thing in large if thing not in border]
    main = max(inner or large, key=lambda thing: areas[thing])
    frames: set[int] = set()
    while True:
        inside = ndimage.binary_fill_holes(labels == main) & (labels != main)
        counts = np.bincount(labels[inside], minlength=len(areas))
        held = [thing for thing in large if counts[thing] > PIECE * inside.sum()]
        if not held or _is_badge(labels, main):
            return main, frames
        frames.add(main)
        main = max(held, key=lambda thing: areas[thing])


def _is_badge(labels: NDArray[np.int32], number: int) -> bool:
    """Whether a thing is the ground of a glyph: solid, with holes that are no loops of a digit."""
    box = ndimage.find_objects(labels)[number - 1]
    inside = ndimage.binary_fill_holes(labels[box] == number)
    holes, count = ndimage.label(inside & (labels[box] == 0), TOUCHING)
    if not count or inside.mean() < SOLID:
        return False
    hole = holes == np.bincount(holes[holes > 0]).argmax()
    places = np.argwhere(hole)
    if hole.sum() < HOLES * inside.sum() or np.ptp(places, axis=0).min() < 2:
        return False
    if inside.mean() > 0.9 and hole.sum() < 0.25 * inside.sum():
        return True
    spread = np.sqrt(np.linalg.eigvalsh(np.cov(places.T)).clip(0))
    slim = spread[0] < 0.3 * spread[1] and min(inside.shape) > 0.85 * max(inside.shape)
    if slim or spread[0] < 0.001:
        return bool(slim)  # of pixels on one slanted line there is no hull
    return bool(hole.sum() < 0.7 * ConvexHull(places).volume)


def _filled_up(grey: Grey, badge: Mask) -> Grey:
    """The inside of a badge, with its colour all around."""
    inside = ndimage.binary_fill_holes(badge)
    edge = max(2, round(0.02 * max(_sides(ndimage.find_objects(inside.astype(np.uint8))[0]))))
    inside = ndimage.distance_transform_edt(inside) > edge
    return cut(behind(grey, ~inside), inside)


def _pieces(
    labels: NDArray[np.int32], main: int, large: list[int], frames: set[int]
) -> tuple[Mask, int]:
    """The pieces of the glyph, and the number of other large things."""
    areas = np.bincount(labels.ravel())
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    boxes = ndimage.find_objects(labels)
    box = boxes[main - 1]
    side = max(_sides(box))
    away = ndimage.distance_transform_edt(labels != main)
    near = set()
    for n in set(np.unique(labels[away <= ABOVE * side])) - frames - {0, main}:
        if not PIECE * areas[main] <= areas[n] <= areas[main] or (
            main not in border and n in border
        ):
            continue
        if _holds(boxes[n - 1], box):
            frames.add(n)
            continue
        shared = min(box[1].stop, boxes[n - 1][1].stop) - max(box[1].start, boxes[n - 1][1].start)
        above = shared > _sides(boxes[n - 1])[1] / 2
        if away[labels == n].min() <= (ABOVE if above else BESIDE) * side:
            near.add(n)
    others = [
        n
        for n in set(large) - near - frames - {main} - set(border)
        if areas[n] > LARGE * areas[main]
    ]
    return np.isin(labels, [main, *near]), len(others)


def _around(glyph: Mask, labels: NDArray[np.int32]) -> Mask:
    """The glyph with its soft edge."""
    (box,) = ndimage.find_objects(glyph.astype(np.uint8))
    near = ndimage.distance_transform_edt(~glyph) <= AROUND * max(_sides(box))
    return near & ~ndimage.binary_dilation((labels > 0) & ~glyph, TOUCHING, 2)


def _check_contrast(apart: Grey, noise: float) -> None:
    """Raise UserError if a glyph does not stand out from its ground and the noise."""
    found, needed = float(np.percentile(apart, 75)) - NOISE * noise, max(CONTRAST, 2 * noise)
    if found < needed:
        raise UserError(
            f"too little contrast: what is on it stands out by {max(found, 0):.0f} of 255 "
            f"grey levels, and {needed:.0f} are needed"
        )


def cut(picture: Grey, seen: Mask) -> Grey:
    """Crop a picture to the smallest box that holds all of its ink.

    Raises UserError if there is none.
    """
    boxes = ndimage.find_objects(seen.astype(np.uint8))
    if not boxes:
        raise UserError(BLANK)
    return picture[boxes[0]]


def _doubts(glyph: Mask, others: int) -> tuple[str, ...]:
    """Words on what is left if it is hardly one digit: bounds that hold for MNIST's own."""
    doubts = []
    if others:
        doubts.append(f"{others + 1} large things are on it, and the largest is read")
    shape = cut(glyph, glyph)
    height, width = shape.shape
    holes, _ = ndimage.label(ndimage.binary_fill_holes(shape) & ~shape)
    loops = (np.bincount(holes.ravel())[1:] > PIECE * shape.sum()).sum()
    if shape.mean() > FULLEST and min(height, width) > SLIM * max(height, width):
        doubts.append("what is left is a filled shape, unlike a digit")
    elif width > WIDEST * height or loops > LOOPS:
        doubts.append("what is left is unlike one digit")
    return tuple(doubts)
