"""Results on stdout, everything else on stderr: plain lines where that is not a terminal.

The one place that prints. On a terminal lines are cut between words, and tables are as narrow as it is.

Names, data, templates, file names and the messages of libraries may hold whatever their authors put there: every text
goes through ``printable``, and none is taken for rich's markup.
"""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from orin_runner.files import json_text, naming
from orin_runner.table import table_lines

PLAIN_INTERVAL = 10.0
"""Seconds between progress lines where stderr is not a terminal."""

LONGEST = 2000
"""Characters of a note. A file, or whoever writes a command line, may give an option or a name any length."""

STDOUT = Path("standard output")
"""What an error of writing a result names."""
BESIDE = 26
"""Cells of a progress line without label and words: a short bar, the percentage, the time left, blanks."""
NOT_KNOWN = "-:--:--"
"""Stands for the time left where it is not known."""
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
    """One line of a result, on stdout; on a terminal several, where it is not as wide."""
    _write(_folded(printable(text), _width(sys.stdout)))


def say_as_it_is(text: str) -> None:
    """One line on stdout whose blanks and length matter."""
    _write(printable(text))


def say_json(value: Any) -> None:
    """A result as strict JSON of ASCII characters, on stdout."""
    _write(json_text(value, indent=1, ascii_only=True))


def _write(text: str) -> None:
    with naming(STDOUT):
        print(text, flush=True)  # a disk that is full is noticed here


class Notes:
    """The stderr side: notes, warnings and progress.

    Args:
        quiet: only warnings and errors.
        verbose: details, too, and what libraries log.
        log: gets a line with the time for all of this, shown or not.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False, log: TextIO | None = None) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
        self._quiet, self.verbose, self._log = quiet, verbose, log

    def note(self, text: str) -> None:
        """One line of information."""
        self._print(text, shown=not self._quiet)

    def detail(self, text: str) -> None:
        """One line of information that not everybody wants."""
        self._print(text, shown=self.verbose)

    def warn(self, text: str) -> None:
        """One line that should not be overlooked."""
        self._print(f"warning: {text}", "yellow")

    def error(self, message: str, hint: str | None) -> None:
        """What went wrong and what to try next, on one line."""
        # A command in it is copied whole where the terminal has wrapped it.
        self._print(f"error: {message}" + (f"; {hint}" if hint else ""), "red", fold=False)

    def log(self, text: str) -> None:
        """A line of the log alone."""
        if self._log is not None:
            moment = datetime.now().astimezone().isoformat(timespec="seconds")
            self._log.write(f"{moment} {printable(text)}\n")
            self._log.flush()

    def _print(self, text: str, style: str | None = None, *, shown: bool = True, fold: bool = True) -> None:
        if len(text) > LONGEST:
            text = f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"
        self.log(text)
        if shown:
            text = printable(text)
            self._console.print(_folded(text, _width(sys.stderr)) if fold else text, style=style)

    @contextmanager
    def progress(self, label: str, total: float | None) -> Iterator[Bar]:
        """A progress bar, or a line every few seconds where stderr is not a terminal; both say the time left.

        The whole line is made here: label and percentage, the words that ``Bar.update`` is given, the time left.

        Args:
            label: what is being done.
            total: what ``done`` is when all is; None where that is not known.
        """
        if self._quiet or not self._console.is_terminal:
            yield _Lines(self, label, total)
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[detail]}", markup=False),
            TextColumn("{task.fields[left]}", markup=False),
        )
        label, width = printable(label), self._console.width
        most = max(2, min(width // 2, width - BESIDE))
        if cell_len(label) > most:
            label = f"{chop_cells(label, most - 1)[0]}…"
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(label, total=total, detail="", left=NOT_KNOWN)
            yield _Live(progress, task, width - cell_len(label) - BESIDE)


class Bar(Protocol):
    """Receives progress; see ``Notes.progress``."""

    def update(self, done: float | None, detail: str = "", left: float | None = None) -> None:
        """Say how much is done, and something about it.

        Args:
            done: of the total; None where that is not known.
            detail: parts with ", " between them, the first that matter most.
            left: seconds; where none is given it goes on at the pace so far.
        """


class _Clock:
    """When a bar began, and with that how many seconds are left at its pace."""

    def __init__(self, total: float | None) -> None:
        self.total, self.began = total, time.monotonic()

    def left(self, done: float | None) -> float | None:
        """None where the total is not known, or less than 1 % is done, which says nothing about the rest."""
        if not self.total or done is None or done < self.total / 100:
            return None
        return (time.monotonic() - self.began) * (self.total - done) / done


class _Live:
    """A bar on a terminal; of what is said beside it, as much as there is room for."""

    def __init__(self, progress: Progress, task: TaskID, room: int) -> None:
        self._progress, self._task, self._room = progress, task, room
        self._clock = _Clock(progress.tasks[task].total)

    def update(self, done: float | None, detail: str = "", left: float | None = None) -> None:
        said = printable(detail).split(", ")
        while said and cell_len(", ".join(said)) > self._room:
            said.pop()
        if left is None:
            left = self._clock.left(done)
        shown = NOT_KNOWN if left is None else duration(left)
        self._progress.update(self._task, completed=done, detail=", ".join(said), left=shown)


class _Lines:
    """A line every ``PLAIN_INTERVAL`` seconds."""

    def __init__(self, notes: Notes, label: str, total: float | None) -> None:
        self._notes, self._label, self._clock = notes, label, _Clock(total)
        self._last = self._clock.began

    def update(self, done: float | None, detail: str = "", left: float | None = None) -> None:
        now, total = time.monotonic(), self._clock.total
        if now - self._last < PLAIN_INTERVAL:
            return
        self._last = now
        share = f" {100 * done / total:.0f} %" if total and done is not None else ""
        if left is None:
            left = self._clock.left(done)
        said = "" if left is None else f", {duration(left)} left"
        self._notes.note(f"{self._label}{share} {detail}".rstrip() + said)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: Sequence[int] = (0,)
) -> None:
    """A table on stdout; columns that are not text are numbers, which are never cut."""
    cells = [[printable(cell) for cell in row] for row in (header, *rows)]
    for line in [title] if title else []:
        say(line)
    for line in table_lines(cells[0], cells[1:], text_columns, _width(sys.stdout)):
        _write(line)


def _width(stream: TextIO) -> int | None:
    """Cells of a line on a terminal, ``COLUMNS`` or as it is wide; None elsewhere, where lines are for programs."""
    return max(1, Console(file=stream).width) if stream.isatty() else None


def _folded(text: str, width: int | None) -> str:
    """``text`` in lines that are cut between words; longer words, such as paths, stay whole."""
    if width is None or cell_len(text) <= width:
        return text
    indent = " " * (len(text) - len(text.lstrip(" ")) + 2)
    first, *words = text.split(" ")
    lines = [first]
    for word in words:
        joined = f"{lines[-1]} {word}"
        if cell_len(joined) <= width or not lines[-1].strip():
            lines[-1] = joined
        else:
            lines.append(indent + word)
    return "\n".join(lines)
