"""Waiting for another process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest


def until(what: Callable[[], bool], patience_s: float = 30) -> None:
    """Wait for another process."""
    for _ in range(round(100 * patience_s)):
        if what():
            return
        time.sleep(0.01)
    pytest.fail("it never came")


def runs(pid: int) -> bool:
    """Whether a process is there, and not only its exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False
