"""Random affine and elastic distortions, drawn anew for each image of a batch.

B batch, T rows of D pixels
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SPACING = 7  # pixels between the points whose elastic displacements are drawn


@dataclass(frozen=True)
class Augmentation:
    """The ranges of the distortions. If all are zero, images stay as they are.

    An image is shifted, then rotated, sheared and scaled. Drawn uniformly within ±: `shift`
    (pixels, horizontally and vertically), `rotation` (degrees), `shear` (pixels to the side for
    each pixel of height), `scale` (a fraction, for height and width each: they are divided by
    1 ± it).

    `elastic` is the standard deviation (pixels) of the displacements of points that are SPACING
    pixels apart, with cubic interpolation between them, as in Ronneberger et al. (2015).
    """

    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    elastic: float = 0.0

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def __call__(self, pixels: Tensor) -> Tensor:
        """Distort each image of a batch: 0–255, any number type (B, T, D) -> float32 (B, T, D).

        Draws from the default generator of the pixels' device. Pixels from outside an image are 0.
        """
        grid = self._affine(pixels)  # (B, T, D, 2)
        if self.elastic:
            grid = grid + self._displacements(pixels)
        _, rows, columns = pixels.shape
        x, y = grid.unbind(dim=3)
        grid = torch.stack([x / (columns / 2), y / (rows / 2)], dim=3)  # -1 … 1 from edge to edge
        images = pixels[:, None].float()  # (B, 1, T, D)
        return F.grid_sample(images, grid, align_corners=False)[:, 0]

    def _affine(self, pixels: Tensor) -> Tensor:
        """Where each pixel is taken from: (x, y) from the image's centre, (B, T, D, 2)."""
        batch, rows, columns = pixels.shape
        draws = torch.rand((6, batch), device=pixels.device) * 2 - 1
        turn = draws[0] * math.radians(self.rotation)
        wide, high = 1 + draws[1] * self.scale, 1 + draws[2] * self.scale
        slant = draws[3] * self.shear
        cos, sin = turn.cos(), turn.sin()
        # rotation · shear · scale
        matrix = torch.stack(
            [cos * wide, (cos * slant - sin) * high, sin * wide, (sin * slant + cos) * high], dim=1
        ).view(batch, 2, 2)
        x = torch.arange(columns, device=pixels.device) - (columns - 1) / 2
        y = torch.arange(rows, device=pixels.device) - (rows - 1) / 2
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).view(-1, 2)
        moved = places @ matrix.mT + (draws[4:] * self.shift).mT[:, None]  # (B, T·D, 2)
        return moved.view(batch, rows, columns, 2)

    def _displacements(self, pixels: Tensor) -> Tensor:
        """The elastic displacement of each pixel, in pixels: (B, T, D, 2)."""
        batch, *size = pixels.shape
        points = [max(2, round(side / SPACING) + 1) for side in size]
        drawn = torch.randn((batch, 2, *points), device=pixels.device) * self.elastic
        smooth = F.interpolate(drawn, size, mode="bicubic", align_corners=True)
        return smooth.permute(0, 2, 3, 1)
