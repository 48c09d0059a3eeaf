"""The programs as a user starts them, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ORIN_RUN = (sys.executable, "-m", "orin_runner")
CONVERT = (sys.executable, "-m", "convert")


def orin_run(
    *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """``orin-run`` with ``arguments``; ``env``: variables beside those of the tests' own process."""
    return subprocess.run(
        [*ORIN_RUN, *arguments], capture_output=True, text=True, check=False, cwd=cwd, env={**os.environ, **(env or {})}
    )


def orin_run_begun(*arguments: str | Path) -> subprocess.Popen[str]:
    """``orin-run`` while it runs, to be disturbed."""
    return subprocess.Popen([*ORIN_RUN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def convert(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """``python -m convert`` with ``arguments``."""
    return subprocess.run([*CONVERT, *arguments], capture_output=True, text=True, check=False)


def refused(done: subprocess.CompletedProcess[str], message: str) -> None:
    """Exit status 2, and the last line of stderr, which is the only error line, says it."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, done.stderr
    assert message in errors[0]
    assert "Traceback" not in done.stderr
