from html import unescape

from mnist_lstm.views.html_page import Picture, Section, Table
from mnist_lstm.views.markdown_page import chart, page


def test_a_page_has_its_tables_and_paragraphs_and_the_texts_of_pictures() -> None:
    table = Table("Both", [["", "now"], ["accuracy", "98.35%"]])
    section = Section("Metrics", [table, "They are equal.", Picture("A curve", b"")])
    assert page("The run", "Made today.", [section]) == (
        "## The run\n\nMade today.\n\n### Metrics\n\nBoth\n\n|  | now |\n|---|---|\n"
        "| accuracy | 98.35% |\n\nThey are equal.\n\nA curve.\n"
    )


def test_a_text_is_only_text() -> None:
    hostile = "<img src=x> | [a](http://b) www.c.org @all #1 GH-2 `x`\n## **y** ~z~ \\"
    text = page(hostile, "", [])
    assert text.count("\n") == 3  # of the heading and the empty introduction
    assert not set("<>|[]@`*~\\") & set(text)
    assert "## &lt;img src=x&gt; &#124; &#91;a&#93;" in text
    decoded = unescape(text).lower()  # as GitHub reads it before it looks for these
    assert not [each for each in ("://", "www.", "@all", "#1", "gh-2") if each in decoded]
    assert page("The run", "at 1:2, 98.35%", []) == "## The run\n\nat 1:2, 98.35%\n"


def test_a_chart_has_a_line_for_each_curve_within_its_axes() -> None:
    text = chart("Accuracy", "step", "%", [50, 100], {"now": [90.0, 98.0], "before": [91.5, 97.25]})
    assert text.startswith("Lines: now, before.\n\n```mermaid\nxychart-beta\n")
    assert '  x-axis "step" 50 --> 100\n  y-axis "%" 90 --> 98\n' in text
    assert "  line [90, 98]\n  line [91.5, 97.25]\n```\n" in text


def test_steps_that_are_not_evenly_spaced_are_written_one_by_one() -> None:
    """The last evaluation may be after fewer steps than the others."""
    text = chart("Accuracy", "step", "%", [300, 600, 850], {"now": [90.0, 98.0, 99.0]})
    assert '  x-axis "step" [300, 600, 850]\n' in text
