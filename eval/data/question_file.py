"""Questions in a file of the user's own: JSON lines, a JSON list or CSV with a header, row by row.

Knows where a row stands, not what its columns mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eval.data.readers import csv_rows, read_json_list, read_jsonl, with_rows
from orin_runner.errors import UserError

FORMS = (".jsonl", ".json", ".csv")
"""Ends of names, with ``.gz`` behind them or not."""


def is_question_file(name: str) -> bool:
    """Whether ``name`` can only mean a file: no task has a dot or a slash in its name."""
    return "." in name or "/" in name


def read_questions(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(number, where it stands, row) of each row; the number is that of its line, in a JSON list of its entry.

    Values of a CSV are texts; those that are empty are left out.

    Raises:
        UserError: the file is in no such form, is missing or damaged, or has no row.
    """
    form = Path(path.name.removesuffix(".gz")).suffix
    if form not in FORMS:
        raise UserError(f"{path} is no file of questions", f"its name ends in {', '.join(FORMS)}")
    if not path.exists():
        raise UserError(
            f"{path} does not exist", "name one that does; orin-run tasks lists the tasks that are no files"
        )
    if form == ".csv":
        yield from ((i, f"{path}, line {i}", row) for i, row in with_rows(path, _table(path)))
    elif form == ".json":
        yield from ((i, f"{path}, entry {i}", row) for i, row in read_json_list(path))
    else:
        yield from ((i, f"{path}, line {i}", row) for i, row in read_jsonl(path))


def _table(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number of the row's end, its cells by column) for every row behind the header; empty lines are left out."""
    header: list[str] | None = None
    for line, row in csv_rows(path, strict=True):
        if not any(cell.strip() for cell in row):
            continue
        if header is None:
            header = [cell.strip() for cell in row]
            if len({*header}) < len(header) or "" in header:
                reason = "the header names a column twice, or one has no name"
                raise UserError(f"{path}, line {line}: {reason}", "question,A,B,C,D,answer is one")
        elif len(row) != len(header):
            raise UserError(
                f"{path}, line {line}: {len(row)} fields instead of {len(header)}",
                'a text with a comma stands in "double quotes"',
            )
        else:
            yield line, {name: cell for name, cell in zip(header, row, strict=True) if cell}
