"""Results on stdout, everything else on stderr: plain lines where that is not a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
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
        """A progress bar, or a line every few seconds where stderr is not a terminal; both say the time left."""
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[detail]}"),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=self._console, transient=True) as progress:
                task = progress.add_task(label, total=total, detail="")
                yield Bar(lambda done, detail: progress.update(task, completed=done, detail=detail), total)
        else:
            began = last = time.monotonic()

            def line(done: float, detail: str) -> None:
                nonlocal last
                now = time.monotonic()
                if now - last >= PLAIN_INTERVAL:
                    last = now
                    share = f" {100 * done / total:.0f} %" if total else ""
                    # Less than 1 % says nothing about the rest.
                    known = total is not None and done >= total / 100
                    left = f", {duration((now - began) * (total - done) / done)} left" if total and known else ""
                    self.note(f"{label}{share} {detail}".rstrip() + left)

            yield Bar(line, total)


class Bar:
    """Receives progress; see ``Notes.progress``."""

    def __init__(self, update: object, total: float | None) -> None:
        assert callable(update)
        self._update = update
        self.total = total

    def update(self, done: float, detail: str = "") -> None:
        """Say how much is done, and something about it."""
        self._update(done, detail)


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
