"""A program on a terminal of its own, so wide, and what it has written there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping
from pathlib import Path

from tests.support.commands import ORIN_RUN

ORDERS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""What a terminal acts on instead of showing it."""


def on_terminal(*arguments: str | Path, columns: int, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """The exit status of ``orin-run``, and all that it has written, with the terminal's orders."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    variables |= {"TERM": "xterm-256color", **(env or {})}
    with subprocess.Popen(
        [*ORIN_RUN, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=variables
    ) as process:
        os.close(theirs)
        written = b""
        try:
            while more := os.read(ours, 65536):
                written += more
        except OSError:  # nobody has it open any more
            pass
    os.close(ours)
    return process.returncode, written.decode()


def shown(written: str) -> list[str]:
    """The lines that were written, one for each time that a line was drawn anew."""
    return [line for line in re.split(r"[\r\n]+", ORDERS.sub("", written)) if line.strip()]
