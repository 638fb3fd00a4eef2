from mnist_lstm.views.text_table import escaped, folded, markdown, table, terminal_width

ROWS = [("run", "steps", "what is different"), ("one-two", "5", "a=1 b=2"), ("three", "2,000", "")]


def test_a_row_is_one_line_without_a_width() -> None:
    assert table(ROWS, None, right=" r") == [
        "run      steps  what is different",
        "one-two      5  a=1 b=2",
        "three    2,000",
    ]


def test_a_line_is_folded_between_words_alone() -> None:
    line = "  different: hidden_size=128 learning_rate=0.002"
    assert folded(line, None) == line
    assert folded(line, 30).splitlines() == [
        "  different: hidden_size=128",
        "    learning_rate=0.002",
    ]
    assert folded(line, 5).splitlines()[-1] == "    learning_rate=0.002"


def test_words_wrap_in_a_narrow_terminal_and_numbers_do_not() -> None:
    assert table(ROWS, 26, right=" r") == [
        "run      steps  what is\n                different",
        "one-two      5  a=1 b=2",
        "three    2,000",
    ]


def test_words_break_at_hyphens_alone() -> None:
    folded = table(ROWS, 3, right=" r")
    assert folded[1].splitlines() == ["one-       5  a=1 b=2", "two"]
    assert max(len(line) for row in folded for line in row.splitlines()) == 23


def test_a_pipe_has_no_width() -> None:
    assert terminal_width() is None


def test_markdown_is_aligned_in_plain_text_too() -> None:
    assert markdown(ROWS, right=" r").splitlines() == [
        "| run     | steps | what is different |",
        "| ------- | ----: | ----------------- |",
        "| one-two |     5 | a=1 b=2           |",
        "| three   | 2,000 |                   |",
    ]


def test_a_terminal_obeys_nothing_in_a_cell() -> None:
    odd = "a\x1b[2J\n\u2028\u202e\x9b\ud800 é 数字 🙂"
    assert escaped(odd) == r"a\x1b[2J\n\u2028\u202e\x9b\ud800 é 数字 🙂"
    assert table([("run",), (odd,)], None)[1] == escaped(odd)
