"""A program on a terminal of its own, so wide, and what it has written there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest

from tests.support.commands import ORIN_RUN

ORDERS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""What a terminal acts on instead of showing it."""
TERM = "xterm-256color"
NOT_OURS = ("COLUMNS", "LINES", "NO_COLOR")
"""Variables that say of another terminal than this one how it is."""
STANDARD = (0, 1, 2)
"""File descriptors of a process's standard streams."""


def on_terminal(*arguments: str | Path, columns: int, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """The exit status of ``orin-run``, and all that it has written, with the terminal's orders."""
    ours, theirs = _opened(columns)
    variables = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
    variables |= {"TERM": TERM, **(env or {})}
    with subprocess.Popen(
        [*ORIN_RUN, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=variables
    ) as process:
        os.close(theirs)
        written = _read(ours)
    os.close(ours)
    return process.returncode, written


def called_on_terminal(program: Callable[[], object], columns: int) -> str:
    """What ``program`` writes, in this process, whose standard streams are the terminal meanwhile."""
    ours, theirs = _opened(columns)
    before = [os.dup(number) for number in STANDARD]
    written: list[str] = []
    reader = threading.Thread(target=lambda: written.append(_read(ours)))
    reader.start()
    try:
        with (
            open(theirs, "w", encoding="utf-8", closefd=False) as stream,
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(stream),
            redirect_stderr(stream),
        ):
            for number in STANDARD:
                os.dup2(theirs, number)
            for name in NOT_OURS:
                patch.delenv(name, raising=False)
            patch.setenv("TERM", TERM)
            program()
    finally:
        for number, own in zip(STANDARD, before, strict=True):
            os.dup2(own, number)
            os.close(own)
        os.close(theirs)
        reader.join()
        os.close(ours)
    return "".join(written)


def _opened(columns: int) -> tuple[int, int]:
    """A terminal's two ends: what is written into the second is read from the first."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    return ours, theirs


def _read(ours: int) -> str:
    """All that is written until nobody has the other end open any more."""
    written = b""
    with suppress(OSError):
        while more := os.read(ours, 65536):
            written += more
    return written.decode()


def shown(written: str) -> list[str]:
    """The lines that were written, one for each time that a line was drawn anew."""
    return [line for line in re.split(r"[\r\n]+", ORDERS.sub("", written)) if line.strip()]
