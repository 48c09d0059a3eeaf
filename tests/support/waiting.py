"""Waiting for another process."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest


def until(what: Callable[[], bool], patience_s: float = 30) -> None:
    """Wait for another process."""
    for _ in range(round(100 * patience_s)):
        if what():
            return
        time.sleep(0.01)
    pytest.fail("it never came")
