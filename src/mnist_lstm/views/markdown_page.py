"""Sections of a report as Markdown for GitHub: for a comment, without a file beside it."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

from mnist_lstm.views.html_page import Section, Table


def page(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """The Markdown of a page. Of a picture, only the text for readers who cannot see it remains."""
    parts = [f"## {_text(title)}", _text(introduction)]
    for section in sections:
        parts.append(f"### {_text(section.heading)}")
        for part in section.parts:
            match part:
                case Table():
                    parts.append(_table(part))
                case str():
                    parts.append(_text(part))
                case picture:
                    parts.append(_text(f"{picture.alt}."))
    return "\n\n".join(parts) + "\n"


def chart(
    title: str, x_axis: str, y_axis: str, steps: Sequence[int], lines: Mapping[str, Sequence[float]]
) -> str:
    """A diagram of lines over the same steps, which GitHub draws with Mermaid.

    Mermaid writes no legend, so a line above the diagram names the lines, from the first on.
    """
    low = min(value for values in lines.values() for value in values)
    high = max(value for values in lines.values() for value in values)
    # between two numbers Mermaid spreads the points evenly; the last step may be out of line
    apart = {after - before for before, after in pairwise(steps)}
    axis = f"{steps[0]} --> {steps[-1]}" if len(apart) == 1 else f"[{', '.join(map(str, steps))}]"
    rows = [
        "```mermaid",
        "xychart-beta",
        f'  title "{_word(title)}"',
        f'  x-axis "{_word(x_axis)}" {axis}',
        f'  y-axis "{_word(y_axis)}" {low:g} --> {high:g}',
        *(f"  line [{', '.join(f'{value:g}' for value in each)}]" for each in lines.values()),
        "```",
    ]
    return f"Lines: {_text(', '.join(lines))}.\n\n" + "\n".join(rows) + "\n"


def _table(table: Table) -> str:
    titles, *rows = table.rows
    lines = [_row(titles), "|" + "---|" * len(titles), *map(_row, rows)]
    return f"{_text(table.caption)}\n\n" + "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_text(cell) for cell in cells) + " |"


def _text(text: str) -> str:
    """A text that is only text: no HTML, link, mention or cell of a table begins in it.

    GitHub looks for mentions, issues and addresses after it has decoded the entities, so a space
    of no width breaks them. A hash of a commit still becomes a link.
    """
    plain = escape(" ".join(text.split()), quote=False)
    plain = re.sub(r"[\\`*_\[\]|#@~]", lambda sign: f"&#{ord(sign[0])};", plain)
    broken = r"(&#35;|&#64;|:(?=//)|\bwww(?=\.)|\bgh(?=-\d))"
    return re.sub(broken, r"\1&#8203;", plain, flags=re.IGNORECASE)


def _word(text: str) -> str:
    return text.replace('"', "'")
