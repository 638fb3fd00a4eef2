import torch

from mnist_lstm.learning.corruptions import ANGLE, NOISE, corrupted

DOT = torch.zeros((1, 28, 28), dtype=torch.uint8)
DOT[0, 5, 20] = 200


def test_copies_are_of_the_same_kind_and_the_same_at_each_call() -> None:
    pixels = torch.randint(0, 256, (3, 8, 6), dtype=torch.uint8)
    first, second = corrupted(pixels), corrupted(pixels)
    assert list(first) == ["shifted", "rotated", "thickened", "inverted", "noisy"]
    for name, copies in first.items():
        assert (copies.shape, copies.dtype) == (pixels.shape, torch.uint8), name
        assert not torch.equal(copies, pixels), name
        assert torch.equal(copies, second[name]), name


def test_shifted_moves_a_dot_to_the_right_and_down() -> None:
    assert corrupted(DOT)["shifted"].nonzero().tolist() == [[0, 7, 22]]


def test_rotated_turns_a_dot_counterclockwise_around_the_centre() -> None:
    rotated = corrupted(DOT)["rotated"][0].double()
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    x = ((columns * rotated).sum() / rotated.sum()).item() - 13.5
    y = 13.5 - ((rows * rotated).sum() / rotated.sum()).item()  # upwards
    before, after = torch.tensor([6.5, 8.5]), torch.tensor([x, y])
    turned = torch.atan2(after[1], after[0]) - torch.atan2(before[1], before[0])
    assert abs(turned.rad2deg().item() - ANGLE) < 1
    assert abs((after.norm() - before.norm()).item()) < 0.2


def test_rotated_keeps_the_shape_of_images_that_are_not_square() -> None:
    bar = torch.zeros((1, 10, 30), dtype=torch.uint8)
    bar[0, 4:6, 10:20] = 255  # 10 pixels long
    rotated = corrupted(bar)["rotated"][0] > 127
    columns = rotated.any(dim=0).nonzero()
    assert 9 <= int(columns.max() - columns.min()) + 1 <= 11  # 10·cos 15° + 2·sin 15° = 10.2


def test_thickened_widens_a_dot_to_three_by_three() -> None:
    expected = torch.zeros_like(DOT)
    expected[0, 4:7, 19:22] = 200
    assert torch.equal(corrupted(DOT)["thickened"], expected)


def test_inverted_exchanges_black_and_white() -> None:
    inverted = corrupted(DOT)["inverted"]
    assert inverted[0, 5, 20] == 55
    assert inverted[0, 0, 0] == 255


def test_noisy_has_noise_of_the_stated_deviation() -> None:
    grey = torch.full((10, 28, 28), 128, dtype=torch.uint8)
    noise = corrupted(grey)["noisy"].double() - 128
    assert abs(noise.mean().item()) < 2
    assert 0.9 * NOISE < noise.std().item() < NOISE  # cut at black and white
