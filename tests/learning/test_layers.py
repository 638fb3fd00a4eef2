import pytest
import torch

from mnist_lstm.learning.layers import dropout, windows


def test_dropout_keeps_the_mean_and_its_mask_ignores_the_layout() -> None:
    ones = torch.ones(100, 100, 100)
    for fraction in (0.01, 0.2, 0.5):
        assert dropout(ones, fraction).mean().item() == pytest.approx(1, abs=0.02)
        dropped = (dropout(ones, fraction) == 0).float()
        assert dropped.mean().item() == pytest.approx(fraction, rel=0.03)
        for lane in range(4):  # each part of a random word
            part = dropped.flatten()[lane::4].mean().item()
            assert part == pytest.approx(fraction, rel=0.1)
    for fraction in (0.99999, 0.999999, 1 - 1e-12):  # the last ones are rounded to 65,535/65,536
        assert (dropout(ones, fraction) == 0).float().mean().item() > 0.9999
    torch.manual_seed(3)
    plain = dropout(ones, 0.5)
    torch.manual_seed(3)
    time_major = dropout(ones.transpose(0, 1).contiguous().transpose(0, 1), 0.5)
    assert torch.equal(plain, time_major)


def test_a_window_has_each_row_between_its_neighbours() -> None:
    x = torch.arange(1.0, 7.0).view(1, 3, 2)
    assert windows(x, 1) is x
    assert windows(x, 3).tolist() == [[[0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 0, 0]]]
    assert windows(x, 7)[0, 1].tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0]
