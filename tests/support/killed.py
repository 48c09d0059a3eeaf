"""A process killed between two of its writes."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = ("os.mkdir", "os.rename", "os.remove", "os.truncate")
KILLED = 9


def killed_at(point: int, program: Callable[[], object], half: Callable[[Callable[[], None]], None]) -> bool:
    """Run ``program`` in a process of its own and end that, without any cleaning up, before its write number ``point``.

    Writes are what changes names or lengths (Python's audit events), each ``fsync``, and what ``half`` adds.

    Args:
        half: called in the process with what counts a write; it may put something in the way of a library's writes.

    Returns:
        Whether it was killed; False where it ended before.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that the child does not use
        child = os.fork()
    if not child:
        _die_at(point, half)
        try:
            program()
        except BaseException:  # noqa: BLE001 - whatever it is, it must not go on in the child
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in {0, KILLED}:
        pytest.fail(f"the program failed before write {point}")
    return code == KILLED


def _die_at(point: int, half: Callable[[Callable[[], None]], None]) -> None:
    left = point

    def count() -> None:
        nonlocal left
        if not left:
            os._exit(KILLED)
        left -= 1

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING):
            count()

    sync = os.fsync

    def counted_sync(number: int) -> None:
        count()
        sync(number)

    os.fsync = counted_sync
    half(count)
    sys.addaudithook(audit)
