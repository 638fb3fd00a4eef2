import math

import pytest

from mnist_lstm import UserError
from mnist_lstm.commands.seeds import changes, format_summary
from mnist_lstm.runs.seeds import summary


def test_the_interval_is_students() -> None:
    found = summary([0.98, 0.982, 0.987])
    assert found.n == 3
    assert found.mean == pytest.approx(0.983)
    assert found.deviation == pytest.approx(0.003606, abs=1e-6)
    assert found.low is not None
    assert found.high is not None
    # t of 2 degrees of freedom at 97.5 %, from a table of Student's distribution
    half = 4.302653 * 0.0036055513 / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((0.983 - half, 0.983 + half), abs=1e-7)


def test_one_seed_has_no_spread() -> None:
    found = summary([0.98])
    assert (found.mean, found.deviation, found.low, found.high) == (0.98, None, None, None)
    assert format_summary(found) == "98.00%; a spread takes two seeds"


def test_equal_figures_have_an_interval_of_no_width() -> None:
    assert format_summary(summary([0.98, 0.98])) == (
        "mean 98.00%, standard deviation 0.00 points, 95 % interval of the mean 98.00% to 98.00%"
    )


def test_changes_are_yaml_as_in_a_recipe() -> None:
    given = ["train.steps=100", "model.reads=both", "train.clip_norm=null", "seed=0777"]
    assert changes(given) == {
        "train.steps": 100,
        "model.reads": "both",
        "train.clip_norm": None,
        "seed": "0777",
    }
    for text, said in (("steps", "-S takes KEY=VALUE"), ("a=[1", "-S a: line 1, column 3: ")):
        with pytest.raises(UserError, match=said):
            changes([text])
