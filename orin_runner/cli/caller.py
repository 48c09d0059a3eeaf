"""Who has called ``eval``: a shell, or Python through ``orin_runner.evaluate``; a click context's ``obj`` is it."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from orin_runner.cli.result import print_result, write_report
from orin_runner.console import Notes
from orin_runner.process_clock import process_started


class Caller(Protocol):
    """What differs.

    Attributes:
        began: when the work for this run began, on the scale of ``time.perf_counter``: what the 2023 challenge's clock
            counts from.
        command: what ``run.json`` says of it.
    """

    began: float
    command: str

    def take(self, report: dict[str, Any], out: Path, notes: Notes, *, as_json: bool, page: bool = True) -> None:
        """Take the report of a run that has ended, and write its ``page`` unless that is there."""


class Shell:
    """A command line: the result is printed."""

    def __init__(self) -> None:
        self.began = process_started()
        self.command = shlex.join(["orin-run", *sys.argv[1:]])

    def take(self, report: dict[str, Any], out: Path, notes: Notes, *, as_json: bool, page: bool = True) -> None:
        print_result(report, out, as_json, notes, page=page)


class Call:
    """A call of a function: the result is kept.

    Args:
        name: of the function.
        options: by name, as it was given them.

    Attributes:
        report: the result, once it is there.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.began = time.perf_counter()
        self.options = dict(options)
        self.name = f"{name}()"
        self.command = f"{name}({', '.join(f'{key}={value!r}' for key, value in options.items())})"
        self.report: dict[str, Any] | None = None

    def take(self, report: dict[str, Any], out: Path, notes: Notes, *, as_json: bool, page: bool = True) -> None:  # noqa: ARG002
        if page:
            write_report(out)
        notes.note(f"run written to {out}")
        self.report = report
