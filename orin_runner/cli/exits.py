"""The one place that ends a program: what went wrong in one line, and the exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable

from orin_runner.console import Notes
from orin_runner.errors import RunError, UserError, os_error_line


def run(program: Callable[[], object], hint: str | None = None) -> None:
    """Run ``program``. An error ends it with one line on stderr; any other exception is a bug and keeps its traceback.

    Exit statuses: 2 for what the user can mend and for errors of the system, 1 for a run that failed, 130 for Ctrl-C.

    Args:
        program: a command line.
        hint: what to say of errors that are not the user's.
    """
    try:
        program()
    except UserError as error:
        _end(2, error.message, error.hint)
    except OSError as error:
        _end(2, os_error_line(error), hint)
    except (RunError, MemoryError) as error:
        _end(1, str(error), hint)
    except KeyboardInterrupt:
        _end(130, "interrupted", hint)


def _end(status: int, message: str, hint: str | None) -> None:
    Notes().error(message, hint)
    sys.exit(status)
