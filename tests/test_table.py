import pytest

from mnist_lstm.table import table, width

ROWS = [("run", "steps", "what is different"), ("one-two", "5", "a=1 b=2"), ("three", "2,000", "")]


def test_a_row_is_a_line_where_nothing_limits_it() -> None:
    assert table(ROWS, None, right=" r").splitlines() == [
        "run      steps  what is different",
        "one-two      5  a=1 b=2",
        "three    2,000",
    ]


def test_words_fold_in_a_narrow_terminal_and_numbers_do_not() -> None:
    folded = table(ROWS, 26, right=" r").splitlines()
    assert folded == [
        "run      steps  what is",
        "                different",
        "one-two      5  a=1 b=2",
        "three    2,000",
    ]
    assert max(map(len, folded)) <= 26


def test_what_cannot_fold_further_stays_wide() -> None:
    assert max(map(len, table(ROWS, 3, right=" r").splitlines())) < 33


def test_a_pipe_has_no_width(capsys: pytest.CaptureFixture[str]) -> None:
    assert width() is None
