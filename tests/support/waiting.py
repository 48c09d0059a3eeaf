"""Waiting for another process."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest


def until(what: Callable[[], bool]) -> None:
    """Wait for another process."""
    for _ in range(3000):
        if what():
            return
        time.sleep(0.01)
    pytest.fail("it never came")
