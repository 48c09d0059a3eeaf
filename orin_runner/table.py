"""Tables of text and numbers as lines that fit a width: text is wrapped, a number is never cut.

Where even that is too wide the table is cut between columns, into parts that each begin with the first column, as
pandas does. What a part cannot do without is wider than the terminal then, rather than cut.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len, chop_cells

BOUND = "\N{NO-BREAK SPACE}"
"""Stands between words that are parted last, and is shown as a blank."""
GAP = 2
"""Cells between two columns."""
LEAST = 12
"""Cells of a column of text below which words are not cut to make room."""


@dataclass(slots=True)
class Column:
    """One column.

    Attributes:
        index: its place in the rows.
        text: whether it may be wrapped.
        least: cells that it cannot do without: a number, a word of its head, or a piece of a longer word.
        whole: cells from which on no word is cut.
        width: cells that it has.
    """

    index: int
    text: bool
    least: int
    whole: int
    width: int


def table_lines(
    header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: Collection[int], width: int | None
) -> list[str]:
    """The lines of a table.

    Args:
        header: a name for each column; no line is spent on it where all are empty.
        rows: texts without control characters, as many as ``header`` has.
        text_columns: columns that are text, on the left; all others are numbers, on the right.
        width: cells of a line, None for as many as it takes.
    """
    columns = [_column(i, header, rows, text=i in text_columns) for i in range(len(header))]
    lines: list[str] = []
    for part in _parts(columns, width):
        if lines:
            lines.append("")
        for row in ([header] if any(header) else []) + [*rows]:
            lines += _row_lines(row, part, head=row is header)
    return lines


def wrapped(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` cells, cut between words, else within; each is indented as the first."""
    if cell_len(text) <= width:
        return [text]
    indent = " " * min(len(text) - len(text.lstrip(" ")), width - 1)
    room = width - len(indent)
    lines, line = [], ""
    for word in _pieces(text, room):
        joined = f"{line} {word}" if line else word
        if line and cell_len(joined) > room:
            lines.append(line)
            joined = word
        line = joined
    return [indent + each for each in [*lines, line]]


def _pieces(text: str, room: int) -> Iterator[str]:
    """The words of a text; of one that has no room those that are bound in it, of these their parts."""
    for bound in text.split(" "):
        for word in bound.split(BOUND) if cell_len(bound) > room else [bound]:
            yield from chop_cells(word, room) if cell_len(word) > room else [word]


def _column(i: int, header: Sequence[str], rows: Sequence[Sequence[str]], *, text: bool) -> Column:
    cells = [row[i] for row in rows]
    whole = max(map(_longest_word, [header[i], *cells] if text else [header[i]]))
    if not text:
        whole = max([whole, *map(cell_len, cells)])
    return Column(i, text, min(whole, LEAST) if text else whole, whole, max(map(cell_len, [header[i], *cells])))


def _longest_word(text: str) -> int:
    indent = len(text) - len(text.lstrip(" "))
    return indent + max(map(cell_len, text.split(" ")))


def _parts(columns: list[Column], width: int | None) -> Iterator[list[Column]]:
    """The columns in parts that fit, each with the first column, with the widths that they have there."""
    if width is None:
        yield columns
        return
    first, *others = columns
    while True:
        part = [first]
        while others and sum(column.least + GAP for column in [*part, others[0]]) - GAP <= width:
            part.append(others.pop(0))
        if others and len(part) == 1:
            part.append(others.pop(0))
        yield _fitted(part, width)
        if not others:
            return


def _fitted(part: list[Column], width: int) -> list[Column]:
    """The columns, the widest that can be narrower made so until all of them fit."""
    fitted = [replace(column) for column in part]
    while sum(column.width + GAP for column in fitted) - GAP > width:
        narrower = [column for column in fitted if column.width > column.least]
        if not narrower:
            break
        # A head is folded before a cell, and a text is folded before a word of one is cut.
        max(narrower, key=lambda each: (each.width > each.whole, not each.text, each.width)).width -= 1
    return fitted


def _row_lines(row: Sequence[str], part: list[Column], *, head: bool) -> list[str]:
    cells = [wrapped(row[column.index], max(1, column.width)) for column in part]
    height = max(map(len, cells))
    lines = []
    for k in range(height):
        shown = []
        for cell, column in zip(cells, part, strict=True):
            at = k - (height - len(cell)) if head else k  # heads stand on their columns
            text = cell[at] if 0 <= at < len(cell) else ""
            blank = " " * (column.width - cell_len(text))
            shown.append(text + blank if column.text else blank + text)
        lines.append((" " * GAP).join(shown).rstrip().replace(BOUND, " "))
    return lines
