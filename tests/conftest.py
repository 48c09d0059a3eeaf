"""Shared fixtures. Real data comes from ``ORIN_DATA``; tests that need it say so when it is not set."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from tests.support.paths import TINY


def pytest_configure() -> None:
    """Give each of several test processes CPUs of its own: llama.cpp's threads spin, and would wait for one another.

    pytest-xdist sets a width, at which whatever the tests start would break its lines.
    """
    os.environ.pop("COLUMNS", None)
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    # What is remembered of this machine's models and their speed is not the tests' to read or to write.
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="orin-run-state-")
    if worker is not None:
        n, cpus = int(os.environ["PYTEST_XDIST_WORKER_COUNT"]), sorted(os.sched_getaffinity(0))
        own = cpus[int(worker.removeprefix("gw")) :: n]
        if own:
            os.sched_setaffinity(0, own)


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The tiny Phi-3 checkpoint of this repository."""
    return TINY


@pytest.fixture(scope="session")
def tiny_gguf(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a GGUF, with its manifest beside it; not to be changed."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    convert(Checkpoint.open(tiny), path, Options())
    return path


@pytest.fixture(scope="session")
def orin_data() -> Path:
    """The folder of public benchmark data."""
    folder = os.environ.get("ORIN_DATA")
    if not folder:
        pytest.skip("ORIN_DATA does not name the folder with the public benchmark data")
    return Path(folder)
