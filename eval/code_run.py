"""Whether code that a model has written runs to its end, in a process shut off from everything (``code_process.py``).

This process never compiles or runs such code.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from eval.code_process import NOT_SHUT_OFF
from orin_runner.errors import RunError, UserError

PROGRAM = Path(__file__).with_name("code_process.py")
SECONDS = 3
"""Of a CPU. The ``code_eval`` of lm-evaluation-harness takes three of the clock, which a busy machine would shorten."""
WALL_SECONDS = 60
"""For code that waits; on a machine that computes, three seconds of a CPU take a while."""
MEMORY = 1 << 30
"""Bytes of address space."""
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
"""Of the process; numpy starts threads otherwise, which are not allowed."""
PROBES = (
    "import socket\nsocket.socket()",
    "import os\nif os.fork() == 0: os._exit(0)",
    f"open({str(PROGRAM)!r}, 'a')",
    "import os\nos.kill(os.getppid(), 0)",
)
"""Code that must not run to its end."""


def passes(code: str) -> bool:
    """Whether ``code`` runs to its end without an exception, as a program of its own.

    Raises:
        RunError: this machine cannot shut it off; it was not run.
    """
    # Which exit status means so is the parent's secret: os._exit(0) is no success.
    status = secrets.choice(range(100, 250))
    setup = {"code": code, "status": status, "seconds": SECONDS, "memory": MEMORY}
    process = subprocess.Popen(
        [sys.executable, "-I", "-B", str(PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=os.sep,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    try:
        with suppress(subprocess.TimeoutExpired):
            process.communicate(json.dumps(setup).encode() + b"\n", timeout=WALL_SECONDS)
    finally:
        process.kill()
        process.wait()
    if process.returncode == NOT_SHUT_OFF:
        raise RunError("code cannot be shut off from network, files and processes here, and was not run")
    return process.returncode == status


def require() -> None:
    """Make sure that code is shut off on this machine.

    Raises:
        UserError: it is not.
    """
    hint = "leave out the tasks that run code; Linux with seccomp filters on x86_64 or aarch64 can"
    try:
        sound = passes("") and not any(map(passes, PROBES))
    except RunError as error:
        raise UserError(str(error), hint) from error
    if not sound:
        raise UserError("code cannot be shut off from network, files and processes here", hint)
