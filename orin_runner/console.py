"""Results on stdout, everything else on stderr: plain lines where that is not a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

PLAIN_INTERVAL = 10.0
"""Seconds between progress lines where stderr is not a terminal."""

GIB = 2**30


class Notes:
    """The stderr side: notes, warnings and progress."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """One line of information."""
        self._console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """One line that should not be overlooked."""
        self._console.print(f"warning: {text}", style="yellow", markup=False)

    def error(self, message: str, hint: str | None) -> None:
        """What went wrong and what to try next, on one line."""
        self._console.print(f"error: {message}" + (f"; {hint}" if hint else ""), style="red", markup=False)

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
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            yield _Live(progress, progress.add_task(label, total=total, detail=""))


class Bar(Protocol):
    """Receives progress; see ``Notes.progress``."""

    def update(self, done: float, detail: str = "") -> None:
        """Say how much is done, and something about it."""


class _Live:
    """A bar on a terminal."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def update(self, done: float, detail: str = "") -> None:
        self._progress.update(self._task, completed=done, detail=detail)


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
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i in text_columns else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # Without a terminal rich would fold wide tables at 80 columns.
    width = None if sys.stdout.isatty() else 160
    Console(highlight=False, width=width).print(table)
