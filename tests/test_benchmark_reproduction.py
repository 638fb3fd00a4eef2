"""The committed curves of five seeds agree with the published script, and the README has them."""

import runpy
from statistics import mean

from samples import PROJECT

from mnist_lstm.pipeline.result_files import read_rows

CURVES = read_rows(PROJECT / "benchmarks" / "reproduction.csv")
TEST = {seed: [row["test_accuracy"] for row in CURVES if row["seed"] == seed] for seed in range(5)}


def test_each_seed_and_their_mean_end_as_the_published_one() -> None:
    last = [mean(curve[-10:]) for curve in TEST.values()]
    assert all(0.978 <= figure <= 0.986 for figure in last), last
    assert 0.979 <= mean(last) <= 0.985


def test_their_mean_begins_as_the_published_one() -> None:
    assert 0.895 <= mean(mean(curve[:10]) for curve in TEST.values()) <= 0.925


def test_steps_and_epochs_are_the_published_ones() -> None:
    published = read_rows(PROJECT / "data" / "published_curve.csv")
    for seed in TEST:
        mine = [(row["step"], row["epoch"]) for row in CURVES if row["seed"] == seed]
        assert mine == [(row["step"], row["epoch"]) for row in published]


def test_the_readme_has_this_table() -> None:
    table = runpy.run_path(str(PROJECT / "benchmarks" / "reproduction.py"))["table"]()
    assert table in (PROJECT / "README.md").read_text()
