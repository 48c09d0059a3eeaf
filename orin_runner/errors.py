"""The exceptions that end a command, and the system's own in one line."""

from __future__ import annotations


class UserError(Exception):
    """Bad input or usage, said in one line together with what to try next.

    Only the command line catches it: it prints ``message`` and ``hint`` and exits with status 2.

    Args:
        message: what is wrong, naming the file, line, tensor or option.
        hint: the command or option to try next.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}; {hint}")
        self.message = message
        self.hint = hint


class RunError(RuntimeError):
    """A run failed for a reason that is not the user's mistake: the device, its memory, or a bug.

    The command line prints it and exits with status 1.
    """


def first_line(error: BaseException) -> str:
    """The first line of what a library's exception says; its name where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def os_error_line(error: OSError) -> str:
    """A disk that is full, a folder that cannot be written: what the system says, and of which file."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)
