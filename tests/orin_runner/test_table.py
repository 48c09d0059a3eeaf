"""Tables as lines: text is wrapped, numbers are whole at every width."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from orin_runner.table import BOUND, table_lines, wrapped

HEADER = ("task", "items", "metric", "value ± s.e.", "other metrics")
ROWS = [
    ("  high_school_government_and_politics", "193", "", "100.00% ± 10.00%", ""),
    ("mmlu", "14,042", "acc", "71.23% ± 0.38%", f"acc_norm{BOUND}72.00%, acc_bytes{BOUND}73.00%"),
]
TEXT = (0, 2, 4)
WORDS = st.lists(st.text("abgelmn日本_", max_size=30), min_size=1, max_size=4).map(" ".join)
NUMBERS = st.integers(0, 10**12).map("{:,}".format)


def test_a_table_by_hand() -> None:
    """Heads stand on their columns, words that belong together stay so, an indent is kept."""
    assert table_lines(HEADER, ROWS, TEXT, None) == [
        "task                                    items  metric      value ± s.e.  other metrics",
        "  high_school_government_and_politics     193          100.00% ± 10.00%",
        "mmlu                                   14,042  acc       71.23% ± 0.38%  acc_norm 72.00%, acc_bytes 73.00%",
    ]
    assert table_lines(HEADER, ROWS, TEXT, 72) == [
        "task                   items  metric      value ± s.e.  other metrics",
        "  high_school_govern     193          100.00% ± 10.00%",
        "  ment_and_politics",
        "mmlu                  14,042  acc       71.23% ± 0.38%  acc_norm 72.00%,",
        "                                                        acc_bytes 73.00%",
    ]
    assert table_lines(("", ""), [("a", "1")], (0,), 80) == ["a  1"]


def test_what_does_not_fit_stands_below() -> None:
    """Each part begins with the first column."""
    assert table_lines(("task", "n", "tokens computed"), [("exam", "1", "130,760"), ("b", "2", "9")], (0,), 14) == [
        "task  n",
        "exam  1",
        "b     2",
        "",
        "        tokens",
        "task  computed",
        "exam   130,760",
        "b            9",
    ]


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]], set[int]]:
    """Columns of text and of numbers in any order, the first of them text."""
    text = [True, *draw(st.lists(st.booleans(), max_size=6))]
    n = draw(st.integers(0, 4))
    rows = [[draw(WORDS if each else NUMBERS) for each in text] for _ in range(n)]
    return [draw(WORDS) for _ in text], rows, {i for i, each in enumerate(text) if each}


@given(tables(), st.integers(1, 140))
def test_no_number_is_cut(table: tuple[list[str], list[list[str]], set[int]], width: int) -> None:
    """Nor moved out of its row's first line, and nothing of the text is lost."""
    header, rows, text = table
    lines = table_lines(header, rows, text, width)
    shown = [word for line in lines for word in line.split()]
    for row in rows:
        for i, cell in enumerate(row):
            if i not in text:
                assert cell in shown
                shown.remove(cell)
    letters = "".join(sorted(re.sub(r"[\s\d,]", "", "".join(lines))))
    for i in text:
        for cell in (header[i], *(row[i] for row in rows)):
            assert set(cell.replace(" ", "")) <= set(letters)


@given(tables())
def test_no_line_is_wider_than_it_may_be(table: tuple[list[str], list[list[str]], set[int]]) -> None:
    """Where a label of twelve cells, a number of 17 and a gap have room."""
    header, rows, text = table
    heads = ["n" if i not in text else head for i, head in enumerate(header)]
    for width in (31, 80, 100, 120):
        assert all(cell_len(line) <= width for line in table_lines(heads, rows, text, width))


@pytest.mark.parametrize("width", [1, 2, 3, 7, 20, 100])
@pytest.mark.parametrize("text", ["", "  ", "a  b", "  one word", "日本語 text", "x" * 50, "the end is near " * 5])
def test_wrapped_text_is_all_there(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(cell_len(line) <= max(width, 2) for line in lines)
