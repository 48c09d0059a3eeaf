"""What is printed on terminals of several widths: that nothing of it is lost, and that no line is wider."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from orin_runner.cli.main import main
from tests.support.terminal import called_on_terminal, shown

NUMBER = re.compile(r"[-+(]?\d[\d,./]*[%;,)]*")
"""A word of these characters alone, with what may stand beside it in a sentence."""
WIDTHS = (80, 100, 120)
WIDEST = 4000
Program = Callable[[], Any]


def command(*arguments: str | Path) -> Program:
    """``orin-run`` with ``arguments``, in this process."""

    def program() -> None:
        with pytest.MonkeyPatch.context() as patch, suppress(SystemExit):
            patch.setattr(sys, "argv", ["orin-run", *map(str, arguments)])
            main()

    return program


def said(program: Program, columns: int) -> list[str]:
    """The lines of a program on a terminal."""
    return [line.rstrip() for line in shown(called_on_terminal(program, columns))]


def numbers(lines: Sequence[str]) -> Counter[str]:
    return Counter(word.strip(";,()") for word in " ".join(lines).split() if NUMBER.fullmatch(word))


def words(lines: Sequence[str]) -> Counter[str]:
    """All of them, whatever their numbers are: of what is measured."""
    return Counter(re.sub(r"\d[\d,.]*", "0", word) for word in " ".join(lines).split())


def check(
    program: Program, *, kept: Callable[[Sequence[str]], Counter[str]] = numbers, whole: Sequence[str | Path] = ()
) -> None:
    """A narrow screen has all that a wide one has, and no longer lines than it may.

    Args:
        program: prints, the same each time.
        kept: what of it must be there.
        whole: what lines that may be longer have in them.
    """
    wide = said(program, WIDEST)
    assert numbers(wide), wide
    for columns in WIDTHS:
        narrow = said(program, columns)
        assert not kept(wide) - kept(narrow), narrow
        check_lines(narrow, columns, whole)


def check_lines(lines: Sequence[str], columns: int, whole: Sequence[str | Path] = ()) -> None:
    """``lines`` fit, and nothing in them is cut."""
    for line in lines:
        assert "…" not in line
        assert not line.startswith("error:")
        assert cell_len(line) <= columns or any(str(part) in line for part in whole), line
