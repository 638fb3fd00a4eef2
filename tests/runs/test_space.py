from pathlib import Path

import optuna
import pytest
from samples import PROJECT, REFERENCE_RECIPE

from mnist_lstm import UserError
from mnist_lstm.runs import space


def read(folder: Path, text: str) -> space.Space:
    path = folder / "space.yaml"
    path.write_text(text)
    return space.read(path, REFERENCE_RECIPE, {})


def test_the_committed_space_is_of_the_recipes_keys() -> None:
    found = space.read(PROJECT / "recipes" / "search.yaml", REFERENCE_RECIPE, {})
    assert list(found) == ["train.learning_rate", "model.hidden_size", "model.dropout"]


def test_values_are_of_the_types_of_their_keys(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "train.learning_rate: {low: 0.0001, high: 0.1, log: true}\n"
        "model.hidden_size: {low: 16, high: 64, step: 16}\n"
        "model.dropout: {low: 0, high: 0.5, step: 0.1}\n"
        "model.num_layers: {low: 1, high: 3}\n"
        "train.clip_norm: [null, 1.0]\n"
        "model.cell: [lstm, gru]\n",
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        values = space.rounded(found, space.suggest(found, study.ask()))
        rate = values["train.learning_rate"]
        assert 0.0001 <= rate <= 0.1
        assert rate == float(f"{rate:.3g}")
        assert values["model.hidden_size"] in (16, 32, 48, 64)
        assert values["model.dropout"] in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
        assert type(values["model.num_layers"]) is int
        assert values["train.clip_norm"] in (None, 1.0)
        assert values["model.cell"] in ("lstm", "gru")


def test_a_rounded_value_stays_in_its_range(tmp_path: Path) -> None:
    found = read(tmp_path, "train.learning_rate: {low: 0.0012345, high: 0.0012349}\n")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    values = space.rounded(found, space.suggest(found, study.ask()))
    assert 0.0012345 <= values["train.learning_rate"] <= 0.0012349


def test_values_near_one_stay_apart(tmp_path: Path) -> None:
    """Three digits would leave 0.999 and 1 of them."""
    found = read(tmp_path, "train.averaging: {low: 0.99, high: 0.9999}\n")
    for value, short in ((0.9991234, 0.99912), (0.9996, 0.9996), (0.9912345, 0.99123)):
        assert space.rounded(found, {"train.averaging": value}) == {"train.averaging": short}
    found = read(tmp_path, "model.dropout: {low: 0.0625, high: 0.5, step: 0.0625}\n")
    assert space.rounded(found, {"model.dropout": 0.0625 * 3}) == {"model.dropout": 0.1875}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[]", "space.yaml: must have keys of params.yaml, such as train.learning_rate"),
        ("train.lr: [1]", "space.yaml: train.lr is not a known key; "),
        ("train: [1]", "train must be a section"),
        ("model.dropout: 0.5", "model.dropout must be a list of values, or have low and high"),
        ("model.dropout: {low: 0.1}", "model.dropout must be a list of values, or have low and"),
        ("model.dropout: {low: a, high: b}", "model.dropout: low, high and step must be numbers"),
        ("model.dropout: {low: 0.1, high: 0.2, log: 3}", "model.dropout: log must be true or fal"),
        ("model.dropout: {low: 0.5, high: 0.1}", "model.dropout: "),
        ("model.dropout: {low: 0.5, high: 1.1}", "model.dropout: model.dropout must be below 1"),
        ("model.hidden_size: {low: 16, high: 64, step: 0}", "model.hidden_size: "),
        ("model.dropout: {low: 0.1, high: 0.5, step: 0}", "model.dropout: "),
        ("model.dropout: []", "model.dropout: a list must have values to choose from"),
        ("model.dropout: [0.1, 0.1]", "model.dropout: a value is there twice"),
        ("model.dropout: [[0.1]]", "model.dropout: a list must have values to choose from"),
        ("model.hidden_size: [64, 0.5]", "model.hidden_size must be a whole number, is 0.5"),
        ("model.cell: [lstm, gur]", "model.cell must be 'lstm', 'gru' or 'rnn', is 'gur' (text)"),
    ],
)
def test_a_mistake_gets_one_line_that_names_the_key(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    assert line in str(error.value)
    assert "\n" not in str(error.value)
