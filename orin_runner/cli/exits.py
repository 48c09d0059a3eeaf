"""The one place that ends a program: what went wrong in one line, and the exit status."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from orin_runner.console import Notes
from orin_runner.errors import RunError, UserError, first_line, os_error_line
from orin_runner.files import STDERR

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, ``kill`` and whoever ends services and batch jobs, a terminal or connection that closes."""
AGAIN_S = 0.05
"""Seconds until a signal that came where nothing can be raised comes again."""
MORE_MEMORY = "give it more memory (ulimit -v says what it may have)"
OWN = ("convert", "eval", "orin_runner")
"""This project's packages."""
IMPORTING = ("<frozen importlib._bootstrap>", "_find_and_load")
"""File and name of the code that runs while a module is being imported; its local ``name`` is the module's."""


class BrokenOffError(Exception):
    """A run that was interrupted has brought itself to an end; ``hint`` says how it goes on."""

    def __init__(self, hint: str) -> None:
        super().__init__(hint)
        self.hint = hint


class Interruptions:
    """While it is entered, each of ``SIGNALS`` raises ``KeyboardInterrupt``; those that were ignored before still are.

    The first one counts. Behind it the program is ending, and a SIGTERM or SIGHUP more does not disturb that.

    Attributes:
        number: of the signal that came, None where none has.
        in_force: the one that is entered, None where none is. A ``run`` within another goes by that of the outer one.
    """

    in_force: ClassVar[Interruptions | None] = None

    def __init__(self) -> None:
        self.number: int | None = None
        self._told = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruptions:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                self._before[number] = signal.signal(number, self._interrupt)
        Interruptions.in_force = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        Interruptions.in_force = None
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if _cannot_raise(frame):
            again = threading.Timer(AGAIN_S, signal.pthread_kill, (threading.main_thread().ident, number))
            again.daemon = True
            again.start()
        elif self.number is None:
            self.number = number
            raise KeyboardInterrupt(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    def end(self, hint: str | None) -> None:
        """End the program as shells expect it of one that a signal has ended; a ``run`` within another has said it."""
        number = self.number or signal.SIGINT
        if self._told:
            sys.exit(128 + number)
        self._told = True
        _interrupted(number, hint)


def _cannot_raise(frame: FrameType | None) -> bool:
    """Whether a frame of ``run``'s program runs where an exception would not arrive at ``run``.

    That of a finalizer is printed and forgotten. Where a library is being imported, its C++ may be what has called the
    frame, and may end the process when an exception comes back (torch's ``_c10d_init`` does, by ``abort``).
    """
    while frame is not None and frame.f_code is not run.__code__:
        code = frame.f_code
        if code is weakref.finalize.__call__.__code__ or code.co_name == "__del__":
            return True
        if (code.co_filename, code.co_name) == IMPORTING and not _is_own(frame.f_locals["name"]):
            return True
        frame = frame.f_back
    return False


def _is_own(module: str) -> bool:
    return module.partition(".")[0] in OWN


def run(program: Callable[[], object], hint: str | None = None) -> None:
    """Run ``program``. An error ends it with one line on stderr; any other exception is a bug and keeps its traceback.

    Exit statuses: 2 for what the user can mend and for errors of the system, 1 for a run that failed, a library that
    cannot be loaded and a lack of memory, 130 for Ctrl-C, 143 and 129 for SIGTERM and SIGHUP, which end a program as
    Ctrl-C does.

    Args:
        program: a command line.
        hint: what to say of errors that are not the user's.
    """
    _open_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):  # where it is not UTF-8, what it cannot show is spelled out
        sys.stdout.reconfigure(errors="backslashreplace")
    outer = Interruptions.in_force
    with Interruptions() if outer is None else nullcontext(outer) as interruptions:
        try:
            program()
        except UserError as error:
            _end(2, error.message, error.hint)
        except OSError as error:
            _end(2, os_error_line(error), hint)
        except RunError as error:
            _end(1, str(error), hint)
        except MemoryError:
            _end(1, "out of memory", hint or MORE_MEMORY)
        except BrokenOffError as error:
            interruptions.end(error.hint)
        except KeyboardInterrupt:
            interruptions.end(hint)
        except SystemExit:
            if interruptions.number is None:
                raise
            interruptions.end(hint)  # typer makes a silent exit of Ctrl-C
        except Exception as error:  # loading a library, or what it is wrapped in, may raise anything
            reason = scarcity(error)
            if reason is None:
                raise
            _end(1, reason, f"{MORE_MEMORY}, or install it again")


def scarcity(error: Exception) -> str | None:
    """Which library cannot be loaded, or that no thread can be started, in one line; None where it is something else.

    Where memory is short, the loader of shared objects, the interpreter and the libraries each say so in another way.
    What they have in common is that somebody else's module is being imported.
    """
    if isinstance(error, ImportError):
        loading = not _is_own(error.name or "")
    else:
        root = Path(__file__).parents[2]
        own = tuple(f"{root / package}{os.sep}" for package in OWN)
        frames = reversed(traceback.extract_tb(error.__traceback__))
        behind_ours = takewhile(lambda frame: not frame.filename.startswith(own), frames)
        loading = any(frame.name == "<module>" for frame in behind_ours)
    if loading:
        return f"a library cannot be loaded: {first_line(error)}"
    return first_line(error) if str(error) == "can't start new thread" else None


def _open_standard_streams() -> None:
    """Open those that whoever started the program has closed: the next file would get the number of one instead.

    What llama.cpp writes to standard error would then stand in that file.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= STDERR:  # it gets the lowest number that is free
        pass
    os.close(number)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def run_process(program: Callable[[], object]) -> None:
    """``run``, where the process ends with ``program``: a Ctrl-C behind it has no words of Python's to say."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        run(program)
    except KeyboardInterrupt as error:  # it came when ``program`` had ended, or once more while it was ending
        if not error.args:
            sys.exit(128 + signal.SIGINT)
        _interrupted(error.args[0], None)


class Command(TyperCommand):
    """A command line whose mistakes are one line like all others, with nothing in it that a terminal would act on."""

    def main(self, *args: Any, **options: Any) -> Any:
        _plainly(super().main, *args, **options)


class Group(TyperGroup):
    """Several commands of that kind."""

    def main(self, *args: Any, **options: Any) -> Any:
        _plainly(super().main, *args, **options)


def mistake_in(error: Exception) -> UserError | None:
    """A mistake in words or values of a command line, click's or ours; None where ``error`` is something else."""
    if isinstance(error, UserError):
        return error
    if hasattr(error, "format_message") and hasattr(error, "show"):
        return UserError(error.format_message().rstrip("."), "--help says what there is")
    return None


def _plainly(main: Callable[..., Any], *args: Any, **options: Any) -> None:
    try:
        status = main(*args, **{**options, "standalone_mode": False})
    except typer.Abort:
        status = 1
    except Exception as error:  # click's, which typer has under another name in each version
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            status = 2
        elif (mistake := mistake_in(error)) is None or mistake is error:
            raise
        else:
            raise mistake from error
    sys.exit(status or 0)


def _interrupted(number: int, hint: str | None) -> None:
    # Where Ctrl-C interrupted an exec(), such as a dataclass in the making, CPython would end the process by SIGINT
    # instead, whatever became of it; the next exec() makes it forget (run_eval_code_obj in pythonrun.c).
    exec("")  # noqa: S102
    name = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    _end(128 + number, f"interrupted{name}", hint)


def _end(status: int, message: str, hint: str | None) -> None:
    Notes().error(message, hint)
    sys.exit(status)
