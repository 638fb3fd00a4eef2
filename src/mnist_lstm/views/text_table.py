"""Format tables as text: with columns that wrap in a narrow terminal, or as markdown."""

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence

GAP = "  "
# what changes a terminal or the order of a line: control characters, separators, directions
ODD = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str) -> str:
    """A text from a foreign file with its control characters as escapes."""
    return ODD.sub(lambda odd: odd[0].encode("unicode_escape").decode(), text)


def terminal_width() -> int | None:
    """The width of the terminal; None if the output is not a terminal: then no row is wrapped."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(rows: Sequence[Sequence[str]], width: int | None, right: str = "") -> list[str]:
    """Format each row as a text. The first row has the titles.

    Columns are wrapped until the table is at most `width` wide, if that is possible. Words are
    broken only at hyphens. `right` has an `r` for each right-aligned column; these columns hold
    numbers and are not wrapped.
    """
    rows = [[escaped(cell) for cell in row] for row in rows]
    alignment = right.ljust(len(rows[0]))
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    least = [max(map(_longest, column)) for column in zip(*rows, strict=True)]
    while width and _total(sizes) > width:
        foldable = [i for i, where in enumerate(alignment) if where != "r" and sizes[i] > least[i]]
        if not foldable:
            break
        sizes[max(foldable, key=lambda i: sizes[i])] -= 1
    return ["\n".join(_lines(row, sizes, alignment)) for row in rows]


def folded(text: str, width: int | None) -> str:
    """A line that is wrapped between words to `width`; the lines after the first are indented."""
    return textwrap.fill(
        text,
        width or len(text) + 1,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def markdown(rows: Sequence[Sequence[str]], right: str = "") -> str:
    """Format rows as a markdown table, aligned in plain text too. The first row has the titles.

    `right` has an `r` for each right-aligned column.
    """
    alignment = right.ljust(len(rows[0]))
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = [
        "-" * (size - 1) + ":" if where == "r" else "-" * size
        for size, where in zip(sizes, alignment, strict=True)
    ]
    titles, *others = rows
    lines = [_fitted(row, sizes, alignment) for row in (titles, rule, *others)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _total(sizes: Sequence[int]) -> int:
    return sum(sizes) + len(GAP) * (len(sizes) - 1)


def _longest(cell: str) -> int:
    return max(map(len, textwrap.wrap(cell, 1, break_long_words=False)), default=0)


def _lines(row: Sequence[str], sizes: Sequence[int], alignment: str) -> list[str]:
    cells = [
        (textwrap.wrap(cell, size, break_long_words=False) or [""])
        for cell, size in zip(row, sizes, strict=True)
    ]
    lines = []
    for number in range(max(map(len, cells))):
        parts = [cell[number] if number < len(cell) else "" for cell in cells]
        lines.append(GAP.join(_fitted(parts, sizes, alignment)).rstrip())
    return lines


def _fitted(cells: Sequence[str], sizes: Sequence[int], alignment: str) -> list[str]:
    """Cells padded to the sizes of their columns."""
    return [
        cell.rjust(size) if where == "r" else cell.ljust(size)
        for cell, size, where in zip(cells, sizes, alignment, strict=True)
    ]
