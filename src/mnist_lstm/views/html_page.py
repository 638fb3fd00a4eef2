"""A self-contained HTML page: headings, tables, and pictures as data URLs."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
body { color: #1a1a1a; background: #fff; font: 16px/1.5 system-ui, sans-serif;
       margin: 2rem auto; max-width: 52rem; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
h1 { overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; }
img { height: auto; max-width: 100%; }
figure { margin: 1rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
caption { padding-bottom: 0.5rem; text-align: left; }
th, td { border-bottom: 1px solid #ddd; padding: 0.3rem 1.5rem 0.3rem 0; text-align: left; }
@media (max-width: 40rem) {
  body { font-size: 14px; margin: 1rem auto; }
  table { font-size: 13px; }
  th, td { padding-right: 0.5rem; }
}
td { font-variant-numeric: tabular-nums; }
"""
# a browser that follows this policy loads nothing from outside, whatever the page contains
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first row and the first column are titles."""

    caption: str
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A PNG, with a text for readers who cannot see it."""

    alt: str
    content: bytes


@dataclass(frozen=True)
class Section:
    """A heading and its content. A str is a paragraph."""

    heading: str
    parts: Sequence[str | Table | Picture]


def page(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """The HTML of a page that needs no other file."""
    body = "\n".join(_section(section) for section in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p>{escape(introduction)}</p>
{body}
</body>
</html>
"""


def _section(section: Section) -> str:
    parts = "\n".join(_part(part) for part in section.parts)
    return f"<section>\n<h2>{escape(section.heading)}</h2>\n{parts}\n</section>"


def _part(part: str | Table | Picture) -> str:
    match part:
        case Table():
            return _table(part)
        case Picture():
            data = base64.b64encode(part.content).decode()
            source = f"data:image/png;base64,{data}"
            return f'<figure><img src="{source}" alt="{escape(part.alt)}" width="800"></figure>'
        case text:
            return f"<p>{escape(text)}</p>"


def _table(table: Table) -> str:
    titles, *rows = table.rows
    lines = [
        f'<div class="wide"><table>\n<caption>{escape(table.caption)}</caption>',
        f"<thead><tr>{_cells(titles, 'col')}</tr></thead>\n<tbody>",
        *(f"<tr>{_cells(row[:1], 'row')}{_cells(row[1:])}</tr>" for row in rows),
        "</tbody></table></div>",
    ]
    return "\n".join(lines)


def _cells(cells: Sequence[str], scope: str = "") -> str:
    tag, start = ("th", f'<th scope="{scope}">') if scope else ("td", "<td>")
    return "".join(f"{start}{escape(cell)}</{tag}>" for cell in cells)
