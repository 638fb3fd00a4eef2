import math

import pytest
import torch

from mnist_lstm.learning.augmentation import Augmentation


def blobs(batch: int, rows: int = 28, columns: int = 28) -> torch.Tensor:
    """Images that each show a blurred disc, to the right of the middle and above it."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    apart = (x - columns * 0.7) ** 2 + (y - rows * 0.4) ** 2
    return (255 * torch.exp(-apart / 8)).to(torch.uint8).expand(batch, -1, -1)


def middles(images: torch.Tensor) -> torch.Tensor:
    """The centre of mass of each image, (x, y) in pixels from its middle: (B, T, D) -> (B, 2)."""
    mass = images.sum(dim=(1, 2), dtype=torch.float32)
    x = torch.arange(images.shape[2]) - (images.shape[2] - 1) / 2
    y = torch.arange(images.shape[1]) - (images.shape[1] - 1) / 2
    across, down = images.sum(dim=1) * x, images.sum(dim=2) * y
    return torch.stack([across.sum(dim=1) / mass, down.sum(dim=1) / mass], dim=1)


def distorted(seed: int = 0, batch: int = 400, **settings: float) -> torch.Tensor:
    torch.manual_seed(seed)
    return Augmentation(**settings)(blobs(batch))


def test_zero_ranges_leave_images_as_they_are() -> None:
    assert not Augmentation()
    assert Augmentation(elastic=0.1)
    images = blobs(3, rows=20, columns=31)
    torch.testing.assert_close(Augmentation()(images), images.float(), rtol=0, atol=1e-3)


def test_shifts_are_spread_over_their_range() -> None:
    moved = middles(distorted(shift=2.5)) - middles(blobs(1))
    assert moved.abs().max() < 2.6
    for way in moved.T:  # across, down
        assert way.min() < -2.3
        assert way.max() > 2.3
        assert abs(way.mean()) < 4 * 2.5 / math.sqrt(3 * 400)


def test_rotations_keep_the_distance_to_the_middle() -> None:
    before, after = middles(blobs(1)), middles(distorted(rotation=15))
    lengths = after.norm(dim=1) / before.norm()
    torch.testing.assert_close(lengths, torch.ones(400), rtol=0, atol=0.02)
    turns = torch.rad2deg(torch.atan2(after[:, 1], after[:, 0]) - torch.atan2(*before[0].flip(0)))
    assert -15.5 < turns.min() < -14
    assert 14 < turns.max() < 15.5


def test_scales_move_both_ways_apart() -> None:
    ratios = middles(distorted(scale=0.12)) / middles(blobs(1))
    assert 1 / 1.14 < ratios.min() < 1 / 1.1
    assert 1 / 0.9 < ratios.max() < 1 / 0.86
    assert abs(torch.corrcoef(ratios.T)[0, 1]) < 0.2  # height and width are drawn apart


def test_shears_move_to_the_side_alone() -> None:
    moved = middles(distorted(shear=0.2)) - middles(blobs(1))
    height = abs(float(middles(blobs(1))[0, 1]))
    assert moved[:, 1].abs().max() < 0.05
    assert 0.15 * height < moved[:, 0].abs().max() < 0.21 * height


def test_elastic_bends_each_image_its_own_way() -> None:
    moved = middles(distorted(elastic=1.0)) - middles(blobs(1))
    assert 0.5 < moved.std(dim=0).min() < moved.std(dim=0).max() < 1.1
    # smoothly: neighbours stay neighbours
    ramp = torch.arange(28.0).expand(50, 28, 28)
    torch.manual_seed(0)
    steps = Augmentation(elastic=1.0)(ramp)[:, 6:-6, 6:-6].diff(dim=2)
    assert steps.min() > -0.5
    assert steps.max() < 2.5


@pytest.mark.parametrize("name", ["rotation", "scale", "shear", "shift", "elastic"])
def test_the_seed_decides_and_each_image_is_distorted_anew(name: str) -> None:
    settings = {name: 0.5}
    first, again, other = (distorted(seed, 2, **settings) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(*first)
    assert first.min() >= 0
    assert first.max() <= 255
