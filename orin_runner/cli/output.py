"""How much a command says, the same for every command: ``-q``, ``-v``, ``--log-file``.

What libraries log and warn of is a detail like others: before an error of theirs, which a command puts into one line,
they tend to say it six times.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import shlex
import sys
import traceback
import typing
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from orin_runner.cli.exits import BrokenOffError
from orin_runner.console import Notes
from orin_runner.errors import RunError, UserError

PANEL = "Output"
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", rich_help_panel=PANEL, help="Say nothing but results, warnings and errors."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", rich_help_panel=PANEL, help="Say all there is to say.")]
LogFile = Annotated[
    Path | None,
    typer.Option(
        "--log-file", metavar="FILE", rich_help_panel=PANEL, help="Append all there is to say to this file, with times."
    ),
]
OPTIONS: dict[str, tuple[Any, Any]] = {
    "quiet": (Quiet, False),
    "verbose": (Verbose, False),
    "log_file": (LogFile, None),
}
"""By name, what every command takes: an option and its default."""
OURS = "orin_run."
"""What the loggers of this program are called by, in modules that are called by a library and have no ``Notes``."""
VERBOSITY = ("HF_HUB_VERBOSITY", "TRANSFORMERS_VERBOSITY", "DATASETS_VERBOSITY")
"""Variables of libraries that write to standard error themselves; they are read when the library is imported."""
BARS = ("TQDM_DISABLE", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS")
"""Such ones of their progress bars."""


def with_output(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, which takes ``notes``, as one that takes ``OPTIONS`` instead and makes its ``notes`` of them.

    One that says nothing while it works, and takes no ``notes``, is left as it is.
    """
    parameters = inspect.signature(command).parameters
    if "notes" not in parameters:
        return command

    @functools.wraps(command)
    def run(*arguments: Any, quiet: bool, verbose: bool, log_file: Path | None, **given: Any) -> None:
        with opened_notes(quiet=quiet, verbose=verbose, log_file=log_file) as notes:
            command(*arguments, notes=notes, **given)

    hints = typing.get_type_hints(command, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    taken = [parameter.replace(annotation=hints[name]) for name, parameter in parameters.items() if name != "notes"]
    more = [inspect.Parameter(name, kind, default=value, annotation=of) for name, (of, value) in OPTIONS.items()]
    run.__signature__ = inspect.Signature([*taken, *more])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*taken, *more)}
    return run


@contextmanager
def opened_notes(*, quiet: bool, verbose: bool, log_file: Path | None) -> Iterator[Notes]:
    """What a command says things with; what ends it stands in the log, too.

    Raises:
        UserError: both ``quiet`` and ``verbose``.
        OSError: the log cannot be opened.
    """
    if quiet and verbose:
        raise UserError("--quiet and --verbose ask for opposites", "leave one of them out")
    with ExitStack() as stack:
        log = None if log_file is None else stack.enter_context(log_file.open("a", encoding="utf-8"))
        notes = Notes(quiet=quiet, verbose=verbose, log=log)
        if quiet:
            os.environ.update(dict.fromkeys(BARS, "1"))
        notes.log(shlex.join(["orin-run", *sys.argv[1:]]))
        stack.enter_context(_libraries(notes))
        try:
            yield notes
        except (typer.Exit, SystemExit):
            raise
        except (UserError, RunError, OSError) as error:
            notes.log(f"error: {error}")
            raise
        except (KeyboardInterrupt, BrokenOffError):
            notes.log("interrupted")
            raise
        except BaseException:
            for line in traceback.format_exc().splitlines():
                notes.log(line)
            raise


@contextmanager
def _libraries(notes: Notes) -> Iterator[None]:
    """What libraries log and warn of becomes details."""
    if not notes.verbose:
        for name in VERBOSITY:
            os.environ.setdefault(name, "error")
    root, handler = logging.getLogger(), _Handler(notes)
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.removeHandler(handler)


class _Handler(logging.Handler):
    """Hands messages from ``WARNING`` on to ``Notes``: those of this program as warnings, others as details."""

    def __init__(self, notes: Notes) -> None:
        super().__init__(logging.WARNING)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(OURS):
            self._notes.warn(record.getMessage())
        else:
            self._notes.detail(f"{record.name}: {record.getMessage()}")
