"""The committed curves of five seeds agree with the published script, and the README has them."""

import runpy
from statistics import mean

import pytest
from samples import PROJECT

from mnist_lstm.pipeline.result_files import Row, read_rows


@pytest.fixture(scope="module")
def curves() -> list[list[Row]]:
    """The curve of each seed."""
    rows = read_rows(PROJECT / "benchmarks" / "reproduction.csv")
    return [[row for row in rows if row["seed"] == seed] for seed in range(5)]


@pytest.fixture(scope="module")
def accuracies(curves: list[list[Row]]) -> list[list[float]]:
    """The test accuracies of each seed."""
    return [[row["test_accuracy"] for row in curve] for curve in curves]


def test_each_seed_and_their_mean_end_as_the_published_one(accuracies: list[list[float]]) -> None:
    last = [mean(curve[-10:]) for curve in accuracies]
    assert all(0.978 <= figure <= 0.986 for figure in last), last
    assert 0.979 <= mean(last) <= 0.985


def test_their_mean_begins_as_the_published_one(accuracies: list[list[float]]) -> None:
    assert 0.895 <= mean(mean(curve[:10]) for curve in accuracies) <= 0.925


def test_steps_and_epochs_are_the_published_ones(curves: list[list[Row]]) -> None:
    published = read_rows(PROJECT / "data" / "published_curve.csv")
    for curve in curves:
        mine = [(row["step"], row["epoch"]) for row in curve]
        assert mine == [(row["step"], row["epoch"]) for row in published]


def test_the_readme_has_this_table() -> None:
    table = runpy.run_path(str(PROJECT / "benchmarks" / "reproduction.py"))["table"]()
    assert table in (PROJECT / "README.md").read_text()
