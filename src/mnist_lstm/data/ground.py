"""Tell what is on a picture from its ground: paper, shadows, dark corners.

H, W the height and width of a picture of grey levels 0–255
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Grey = NDArray[Any]
Mask = NDArray[np.bool_]

# sizes of a reduced picture, pixels of its longer side
COARSE = 140  # in which the ground is looked for
COARSEST = 48  # in which is judged whether the ink is darker than the ground

# grey levels, of 255
LEVELS = 64  # number of them at which valleys are filled
DARKEST = 32  # the ground has at least this: of a darker one, noise would be a large share

# the ground: shares
PART = 0.3  # of the border: the stretch whose median is the usual level
FAR = 0.5  # contrast with the usual level from which a pixel of the border is not ground
STEEP = 0.35  # of the highest contrast: a step at which the ground ends

TOUCHING = np.ones((3, 3), dtype=bool)  # diagonally, too


def is_dark_on_light(grey: Grey) -> bool:
    """Whether what stands out of a picture (H, W) is darker than its ground.

    The ground is what can be reached from the border without a steep step. So neither the bright
    middle of a picture nor what a loop encloses is taken for something light.
    """
    ringed = _ringed(_reduced(grey, COARSEST)[0])
    steps = _contrast(ndimage.minimum_filter(ringed, 3), ndimage.maximum_filter(ringed, 3))
    apart = ringed - behind(ringed, ~_outside(steps <= STEEP * steps.max()))
    return bool(apart[np.abs(apart) > np.abs(apart).max() / 2].sum() <= 0)


def behind(grey: Grey, covered: Mask) -> Grey:
    """A picture (H, W) whose covered pixels have the level of the nearest that is not covered."""
    nearest = ndimage.distance_transform_edt(covered, return_distances=False, return_indices=True)
    return grey[tuple(nearest)]


def apart_from_ground(grey: Grey) -> tuple[Grey, Grey, float]:
    """How much darker than its ground each pixel (H, W) is, the ground, and the noise on it.

    All three are in grey levels; the noise is a standard deviation. What is darker than all around
    it is ink: valleys are looked for in a smaller picture, and the ground behind them is the
    nearest. A shadow or a dark corner reaches the border, and is no valley, however steep its edge.
    """
    small, factor = _reduced(grey, COARSE)
    ringed = _ringed(small)
    noise = _deviation(grey - ndimage.uniform_filter(grey, 3))
    deepest = max(2, 4 * noise / factor)
    deep = ndimage.binary_dilation(_filled(ringed) - ringed > deepest, TOUCHING)
    # on a slope a valley is only as deep as its lower side: its soft edge shows in an even light
    light = ndimage.gaussian_filter(behind(ringed, deep), max(ringed.shape) / 16)
    even = ringed * (light.mean() / np.maximum(light, 1))
    near = ndimage.binary_dilation(deep, TOUCHING, 3)
    deep |= ndimage.binary_dilation(_filled(even) - even > deepest, TOUCHING) & near
    deep = deep[1:-1, 1:-1]
    covered = deep.repeat(factor, axis=0).repeat(factor, axis=1)[: grey.shape[0], : grey.shape[1]]
    ground = behind(ndimage.uniform_filter(grey, 2 * (factor // 2) + 1), covered)
    return np.where(covered, ground - grey, 0), ground, noise


def _reduced(grey: Grey, side: int) -> tuple[Grey, int]:
    """Average squares of pixels, so that neither side is longer; the side of a square, too."""
    factor = -(-max(grey.shape) // side)
    return np.asarray(Image.fromarray(grey).reduce(factor), dtype=np.float32), factor


def _ringed(grey: Grey) -> Grey:
    """The picture in a ring of ground, one pixel wide, which goes on from its border.

    A glyph may touch the border: a pixel that is far from the median around it is not ground.
    """
    wide = 2 * (min(grey.shape) // 60) + 1  # dark lines that are thinner are none of the ground
    ringed = np.pad(ndimage.grey_closing(grey, (wide, wide), mode="mirror"), 1, mode="edge")
    numbers = np.arange(ringed.size).reshape(ringed.shape)
    ring = np.concatenate([np.rot90(numbers, turn)[0, :-1] for turn in range(4)])  # once around
    levels = ringed.flat[ring]
    usual = ndimage.median_filter(levels, round(PART * len(ring)) | 1, mode="wrap")
    ringed.flat[ring] = np.where(_contrast(levels, usual) < FAR, levels, usual)
    ringed[1:-1, 1:-1] = grey
    return ringed


def _contrast(one: Grey, other: Grey) -> Grey:
    """How far two levels are apart, as a share of the lighter: so it is the same in a shadow."""
    return np.abs(one - other) / (np.maximum(one, other) + DARKEST)


def _outside(passable: Mask) -> Mask:
    """What of the passable pixels can be reached from the border."""
    labels, _ = ndimage.label(passable)
    reached = np.zeros(labels.max() + 1, dtype=bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        reached[edge] = True
    reached[0] = False
    return reached[labels]


def _filled(grey: Grey) -> Grey:
    """The picture with its valleys filled, as rain fills them until it runs off at the border."""
    filled = grey.copy()
    for level in np.linspace(grey.min(), grey.max(), LEVELS)[1:]:
        below = grey < level
        filled[below & ~_outside(below)] = level
    return filled


def _deviation(residuals: Grey) -> float:
    """A standard deviation robust to outliers: 1.4826 times the median absolute value."""
    deviation = 1.4826 * float(np.median(np.abs(residuals)))
    return deviation if deviation > 0.01 else 0.0  # what rounding leaves
