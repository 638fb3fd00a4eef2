from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import FINISHED, drawn
from scipy.stats import binomtest

from mnist_lstm.dvc_cache import Files
from mnist_lstm.files import sha256
from mnist_lstm.pipeline.result_files import Row, SplitRecord
from mnist_lstm.runs.comparison import Paired, cell, differing, mcnemar, pair, paired
from mnist_lstm.runs.history import History, Partial, Result


@given(st.integers(0, 300), st.integers(0, 300))
def test_it_is_the_exact_binomial_test(first: int, second: int) -> None:
    """scipy computes the same p in another way; without any toss, p is 1."""
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(first, second) == mcnemar(second, first)


def test_four_heads_in_twenty_one_tosses() -> None:
    """Counted: of 2^21 outcomes, 1 + 21 + 210 + 1,330 + 5,985 have at most four heads."""
    assert mcnemar(4, 17) == mcnemar(17, 4) == 2 * 7547 / 2**21


def test_thousands_of_tosses_are_no_overflow() -> None:
    assert mcnemar(4900, 5100) == pytest.approx(0.0466, abs=0.0005)
    assert mcnemar(0, 10_000) == 0.0


def test_only_images_that_one_model_alone_classifies_correctly_count() -> None:
    actual = [1] * 20
    first = [1] * 10 + [0] * 10
    second = [1] * 12 + [0] * 8
    assert paired(actual, first, second) == Paired(20, 0, 2, 0.5)
    assert not paired(actual, first, second).more_than_chance
    assert paired(actual, [0] * 20, first).more_than_chance  # 10 of 10: p = 0.002
    assert paired(actual, first, first) == Paired(20, 0, 0, 1.0)


def test_answers_to_different_numbers_of_images_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired([1, 2], [1, 2], [1])


class Answered(History):
    """A history whose evaluations are their answers to two images, of class 3 and 5."""

    def __init__(self) -> None:
        pass

    def rows(self, files: Files, name: str) -> list[Row]:
        if name != "predictions.csv" or not files:
            return []
        labels = files["labels"].split()
        rows = zip(labels, files["answers"].split(), strict=True)
        return [{"split": "test", "actual": label, "predicted": said} for label, said in rows] + [
            {"split": "validation", "actual": "0", "predicted": "1"}
        ]


def answered(
    answers: str, labels: str = "3 5", sha256: str = "e", dataset: str = "digits"
) -> Result:
    data = {"test": SplitRecord("file", 2, sha256)}
    record = replace(FINISHED, name=answers, dataset=dataset, data=data)
    return Result(record, {}, [{"labels": labels, "answers": answers}])


def committed(answers: str, labels: str = "3 5") -> Partial:
    """A run of which only git's tables are here."""
    return Partial("b", "digits", {}, {}, [{"labels": labels, "answers": answers}])


def test_answers_to_the_same_test_images_are_paired() -> None:
    first = answered("3 5")
    assert pair(Answered(), first, answered("3 4")) == Paired(2, 1, 0, 1.0)
    assert pair(Answered(), first, committed("1 1")) == Paired(2, 2, 0, 0.5)


def test_the_test_images_are_the_same_whatever_preprocess_splits(tmp_path: Path) -> None:
    """It writes its parameters into each file, as here."""
    results = []
    for size in (4, 5):
        path = tmp_path / f"{size}.safetensors"
        replace(drawn(2, seed=0), preprocess={"validation_size": size}).save(path)
        result = answered("3 5", sha256=sha256(path))
        params = {"preprocess": {"validation_size": size}}
        results.append(replace(result, record=replace(result.record, params=params)))
    assert results[0].record.data["test"].sha256 != results[1].record.data["test"].sha256
    assert pair(Answered(), *results) == Paired(2, 0, 0, 1.0)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (answered("3 4", dataset="mnist"), "its test images are from mnist, not from digits"),
        (answered("3 4", sha256="f"), "its test images differ, although both data sets are called"),
        (answered("3 4", "5 3"), "its test images differ, although both data sets are called"),
        (committed("3 4 1", "3 5 1"), "its test images differ, although both data sets are"),
        (Partial("b", "digits", {}, {}), "the answers of b are not in its results"),
    ],
)
def test_answers_to_other_images_are_not(other: Result | Partial, said: str) -> None:
    reason = pair(Answered(), answered("3 5"), other)
    assert isinstance(reason, str)
    assert reason.startswith(said)


def test_parameters_that_differ_or_are_missing() -> None:
    same = {"seed": 0, "model.dropout": 0.5}
    assert differing([same, dict(same)]) == []
    assert differing([same, same | {"seed": 1}, {"seed": 0, "train.steps": 3}]) == [
        "seed",
        "model.dropout",
        "train.steps",
    ]
    assert differing([{"a": None}, {}]) == ["a"]


def test_a_parameter_in_a_table() -> None:
    params = {"train.clip_norm": None, "model.reads": "rows"}
    assert [cell(params, key) for key in (*params, "model.window")] == ["null", "rows", "–"]
