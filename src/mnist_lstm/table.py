"""Tables for a terminal: plain text, in columns that fold where the terminal is narrow."""

import shutil
import sys
import textwrap
from collections.abc import Sequence

GAP = "  "
NARROWEST = 9  # of a column that folds


def width() -> int | None:
    """That of the terminal; None where the output goes elsewhere, and a row must be a line."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(rows: Sequence[Sequence[str]], width: int | None, right: str = "") -> str:
    """Rows, the first of them titles, as lines at most `width` wide where folding brings that.

    `right` has an `r` for each column that is aligned on the right: numbers, which do not fold.
    """
    alignment = right.ljust(len(rows[0]))
    sizes = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    foldable = [i for i, where in enumerate(alignment) if where != "r"]
    while width and sum(sizes) + len(GAP) * (len(sizes) - 1) > width:
        widest = max(foldable, key=lambda i: sizes[i])
        if sizes[widest] <= NARROWEST:
            break
        sizes[widest] -= 1
    return "\n".join(line for row in rows for line in _lines(row, sizes, alignment))


def _lines(row: Sequence[str], sizes: Sequence[int], alignment: str) -> list[str]:
    cells = [
        (textwrap.wrap(cell, size) or [""]) if len(cell) > size else [cell]
        for cell, size in zip(row, sizes, strict=True)
    ]
    lines = []
    for number in range(max(map(len, cells))):
        parts = [cell[number] if number < len(cell) else "" for cell in cells]
        fitted = [
            part.rjust(size) if where == "r" else part.ljust(size)
            for part, size, where in zip(parts, sizes, alignment, strict=True)
        ]
        lines.append(GAP.join(fitted).rstrip())
    return lines
