"""Shared fixtures. Real data comes from ``ORIN_DATA``; tests that need it say so when it is not set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.paths import TINY


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The tiny Phi-3 checkpoint of this repository."""
    return TINY


@pytest.fixture(scope="session")
def orin_data() -> Path:
    """The folder of public benchmark data."""
    folder = os.environ.get("ORIN_DATA")
    if not folder:
        pytest.skip("ORIN_DATA does not name the folder with the public benchmark data")
    return Path(folder)
