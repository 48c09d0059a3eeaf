"""Results on stdout, everything else on stderr: plain lines where that is not a terminal.

The one place that prints. Names, data, templates, file names and the messages of libraries may hold whatever their
authors put there: every text goes through ``printable``, and none is taken for rich's markup.
"""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from orin_runner.files import json_text, naming

PLAIN_INTERVAL = 10.0
"""Seconds between progress lines where stderr is not a terminal."""

LONGEST = 2000
"""Characters of a note. A file, or whoever writes a command line, may give an option or a name any length."""

STDOUT = Path("standard output")
"""What an error of writing a result names."""
GIB = 2**30
UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of what a terminal or a reader acts on instead of showing it: controls (ESC, CR, the C1 range),
formats (bidi overrides, zero-width characters), half surrogates, separators of lines and paragraphs."""


def printable(text: str, keep: str = "") -> str:
    r"""``text`` on one line, with Python's escape (``\x1b``) in place of each character that is not to be seen.

    Args:
        text: of whatever origin.
        keep: characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in UNPRINTABLE and c not in keep else c
        for c in text
    )


def listed(names: Sequence[str]) -> str:
    """Names with commas between them, and "and" before the last."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def say(text: str) -> None:
    """One line of a result, on stdout."""
    _write(printable(text))


def say_json(value: Any) -> None:
    """A result as strict JSON of ASCII characters, on stdout."""
    _write(json_text(value, indent=1, ascii_only=True))


def _write(text: str) -> None:
    with naming(STDOUT):
        print(text, flush=True)  # a disk that is full is noticed here


class Notes:
    """The stderr side: notes, warnings and progress."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def note(self, text: str) -> None:
        """One line of information."""
        self._print(text)

    def warn(self, text: str) -> None:
        """One line that should not be overlooked."""
        self._print(f"warning: {text}", "yellow")

    def error(self, message: str, hint: str | None) -> None:
        """What went wrong and what to try next, on one line."""
        self._print(f"error: {message}" + (f"; {hint}" if hint else ""), "red")

    def _print(self, text: str, style: str | None = None) -> None:
        if len(text) > LONGEST:
            text = f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"
        self._console.print(printable(text), style=style)

    @contextmanager
    def progress(self, label: str, total: float | None) -> Iterator[Bar]:
        """A progress bar, or a line every few seconds where stderr is not a terminal; both say the time left.

        The whole line is made here: label and percentage, the words that ``Bar.update`` is given, the time left.

        Args:
            label: what is being done.
            total: what ``done`` is when all is; None where that is not known.
        """
        if not self._console.is_terminal:
            yield _Lines(self, label, total)
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            yield _Live(progress, progress.add_task(printable(label), total=total, detail=""))


class Bar(Protocol):
    """Receives progress; see ``Notes.progress``."""

    def update(self, done: float, detail: str = "") -> None:
        """Say how much is done, and something about it."""


class _Live:
    """A bar on a terminal."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def update(self, done: float, detail: str = "") -> None:
        self._progress.update(self._task, completed=done, detail=printable(detail))


class _Lines:
    """A line every ``PLAIN_INTERVAL`` seconds."""

    def __init__(self, notes: Notes, label: str, total: float | None) -> None:
        self._notes, self._label, self._total = notes, label, total
        self._began = self._last = time.monotonic()

    def update(self, done: float, detail: str = "") -> None:
        now, total = time.monotonic(), self._total
        if now - self._last < PLAIN_INTERVAL:
            return
        self._last = now
        share = f" {100 * done / total:.0f} %" if total else ""
        # Less than 1 % says nothing about the rest.
        known = total is not None and done >= total / 100
        left = f", {duration((now - self._began) * (total - done) / done)} left" if total and known else ""
        self._notes.note(f"{self._label}{share} {detail}".rstrip() + left)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: Sequence[int] = (0,)
) -> None:
    """A table on stdout; columns that are not text are numbers."""
    table = Table(title=printable(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(printable(name), justify="left" if i in text_columns else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(printable, row))
    # Without a terminal rich would fold wide tables at 80 columns.
    width = None if sys.stdout.isatty() else 160
    with naming(STDOUT):
        Console(highlight=False, width=width, markup=False, emoji=False).print(table)
