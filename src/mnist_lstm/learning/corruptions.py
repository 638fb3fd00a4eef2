"""Fixed corruptions of images, with which evaluate measures how robust a model is.

N images, T rows of D pixels
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SHIFT = 1 / 14  # of each side: 2 pixels of 28, to the right and down
ANGLE = 15  # degrees, counterclockwise
NOISE = 64  # grey levels: standard deviation


def corrupted(pixels: Tensor) -> dict[str, Tensor]:
    """Corrupted copies of images, the same ones at each call: 0–255 uint8 (N, T, D) -> each alike.

    `shifted` moves an image to the right and down by SHIFT, `rotated` turns it by ANGLE,
    `thickened` gives each pixel the largest value of its 3 × 3 neighbours, `inverted` exchanges
    black and white, and `noisy` adds Gaussian noise to each pixel. Pixels from outside an image
    are 0.
    """
    _, rows, columns = pixels.shape
    down, right = (max(1, round(side * SHIFT)) for side in (rows, columns))
    images = pixels.float()
    # drawn on the CPU, so that all devices get the same noise
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)) * NOISE
    return {
        "shifted": F.pad(pixels, [right, 0, down, 0])[:, :rows, :columns],
        "rotated": _levels(_rotated(images)),
        "thickened": _levels(F.max_pool2d(images[:, None], 3, stride=1, padding=1)[:, 0]),
        "inverted": 255 - pixels,
        "noisy": _levels(images + noise.to(pixels.device)),
    }


def _rotated(images: Tensor) -> Tensor:
    """Turn images around their centre, with bilinear interpolation: (N, T, D) -> (N, T, D)."""
    count, rows, columns = images.shape
    sine, cosine = math.sin(math.radians(ANGLE)), math.cos(math.radians(ANGLE))
    # where each pixel is taken from; both axes are -1 … 1 from edge to edge
    matrix = torch.tensor(
        [[cosine, -sine * rows / columns, 0], [sine * columns / rows, cosine, 0]],
        device=images.device,
    )
    size = [count, 1, rows, columns]
    grid = F.affine_grid(matrix.expand(count, 2, 3), size, align_corners=False)
    return F.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


def _levels(images: Tensor) -> Tensor:
    return images.round().clamp(0, 255).to(torch.uint8)
