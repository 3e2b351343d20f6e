"""Tables and hostile text on a terminal: columns that line up, and nothing that a terminal would obey.

Escape sequences, line breaks and direction marks in a name or a value are printed as signs, so a cell is one cell
whatever a file holds.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence

from lmwright.inert import inert
from lmwright.report.wording import clipped

GAP = "  "
WIDEST = 72  # of a cell


def columns(text: str) -> int:
    """Return how many columns of a terminal `text` takes: two for a wide sign, none for a combining one."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def table(rows: Sequence[Sequence[str]], *, right: Collection[int] = (), widest: int = WIDEST) -> list[str]:
    """Return the rows as lines whose columns line up; the last column may be as long as it likes.

    right: numbers of the columns that end together, as numbers do. widest: a longer cell is cut with an ellipsis.
    """
    last = max((len(row) for row in rows), default=0) - 1
    cells = [
        [inert(cell) if i == last else clipped(inert(cell), widest) for i, cell in enumerate(r)] for r in rows
    ]
    widths = [max(columns(row[i]) for row in cells if i < len(row)) for i in range(last + 1)]
    return [GAP.join(_padded(cell, widths[i], i in right) for i, cell in enumerate(row)).rstrip() for row in cells]


def _padded(cell: str, width: int, right: bool) -> str:
    space = " " * (width - columns(cell))
    return space + cell if right else cell + space
