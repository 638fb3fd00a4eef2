"""The table of the choices of recipes/fast.yaml."""

from samples import PROJECT

from benchmarks.fast import CHOICES, STUDY, TITLES, table
from benchmarks.trainings import params_of
from mnist_lstm.pipeline.params import flatten, load


def test_each_choice_changes_something_of_the_recipe() -> None:
    recipe = flatten(load(PROJECT / "recipes" / "fast.yaml").model_dump())
    assert list(TITLES) == list(CHOICES)
    for name, changes in CHOICES.items():
        chosen = flatten(params_of(STUDY, name, 0).model_dump())
        assert all(chosen[key] == value != recipe[key] for key, value in changes.items())
        differs = {key for key, value in chosen.items() if value != recipe[key]}
        assert differs == {"train.eval_every", *changes}


def test_the_accuracy_page_has_the_table_of_two_seeds_each_on_one_machine() -> None:
    rows = STUDY.read()
    expected = [(name, seed) for name in CHOICES for seed in "01"]
    assert [(row["choice"], row["seed"]) for row in rows] == expected
    assert len({(row["device"], row["precision"]) for row in rows}) == 1
    assert len({row["model_sha256"] for row in rows}) == len(rows)
    assert table() in (PROJECT / "docs" / "accuracy.md").read_text()
