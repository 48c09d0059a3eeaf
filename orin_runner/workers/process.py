"""A process that calls one function, with a pipe to its parent; it ends with its parent, and its stderr is kept.

Imports nothing heavy: the process is tied to its parent before it imports the rest.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from multiprocessing.connection import Connection
from typing import Any, Protocol

from orin_runner.workers.death import Death, LastWords

PR_SET_PDEATHSIG = 1
"""``linux/prctl.h``"""
LOOK_S = 0.25
"""How often a process looks whether its parent lives, where the kernel does not watch."""
OUTPUT_BYTES = 1 << 16
"""The end of a worker's output that is looked at."""
DEBUG = "ORIN_DEBUG"
"""Environment variable: everything a dead worker wrote is shown, tracebacks among it."""


Function = Callable[[Connection, Any], None]
"""What a process calls, at the top level of its module: its end of the pipe, and the first message."""


class Channel(Protocol):
    """One end of a pipe; ``recv`` raises EOFError where the other is closed, ``send`` BrokenPipeError."""

    def send(self, message: Any, /) -> None: ...
    def recv(self) -> Any: ...


class Process(Protocol):
    """A process that calls a function with its end of a pipe; see ``WorkerProcess``."""

    @property
    def connection(self) -> Channel: ...
    @property
    def output(self) -> str: ...
    def death(self, said: str | None, patience_s: float) -> Death: ...
    def kill(self) -> None: ...
    def dismiss(self) -> None: ...
    def close(self, patience_s: float) -> None: ...


class WorkerProcess:
    """Calls ``module.name(connection, first message)`` in a fresh interpreter.

    Not ``multiprocessing.Process``: that would import the caller's own script again, and run it if nothing guards it.

    Args:
        function: what it calls; or ``module:name`` of it, where it is not to be imported here.
        environment: variables that it has beside ours, or with another value.
        cpus: where it may run; empty for wherever we may.

    Attributes:
        connection: our end of the pipe.
    """

    def __init__(
        self, function: Function | str, *, environment: Mapping[str, str] | None = None, cpus: Collection[int] = ()
    ) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        self._output = os.memfd_create("worker")
        # The kernel's signal comes when the thread that started the process ends, not when its process does.
        watched = threading.current_thread() is threading.main_thread()
        module, _, name = place_of(function).partition(":")
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; "
            f"main({theirs.fileno()}, {os.getpid()}, {watched}, {sorted(cpus)}, "
            f"{module!r}, {name!r})"
        )
        # ggml would run a debugger on the dying process, which takes seconds.
        quiet = {} if os.environ.get(DEBUG) else {"GGML_NO_BACKTRACE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            env={**os.environ, **quiet, **(environment or {})},
        )
        theirs.close()

    @property
    def output(self) -> str:
        """The end of what it has written so far."""
        start = max(0, os.fstat(self._output).st_size - OUTPUT_BYTES)
        return os.pread(self._output, OUTPUT_BYTES, start).decode("utf-8", "replace")

    def death(self, said: str | None, patience_s: float) -> Death:
        """What it died of, after the pipe has ended.

        Args:
            said: what it told of its end over the pipe.
            patience_s: seconds that it has to end by itself.
        """
        return Death.of(self.wait(patience_s), said, self.output)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def dismiss(self) -> None:
        """Close the pipe, so that it ends of itself."""
        self.connection.close()

    def close(self, patience_s: float) -> None:
        """Close the pipe, and end it if it has not ended of itself after ``patience_s`` seconds."""
        self.connection.close()
        self.wait(patience_s)
        os.close(self._output)

    def wait(self, patience_s: float) -> int:
        """Its exit status as ``subprocess`` has it; it is killed if it has not ended after ``patience_s`` seconds."""
        try:
            return self._process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def place_of(function: Function | str) -> str:
    """``module:name`` of a function."""
    return function if isinstance(function, str) else f"{function.__module__}:{function.__name__}"


def main(descriptor: int, parent: int, watched: bool, cpus: list[int], module: str, name: str) -> None:
    """What the process runs.

    Args:
        descriptor: file descriptor of its end of the pipe, over which the first message comes.
        parent: the process that started it.
        watched: the kernel may be asked to end it with the thread that started it.
        cpus: where it may run; empty for anywhere.
        module, name: of the function to call.
    """
    _end_with(parent, watched=watched)
    if cpus:
        os.sched_setaffinity(0, cpus)
    # They reach the whole process group; the parent decides what becomes of this process.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    faulthandler.enable()
    function = getattr(importlib.import_module(module), name)
    connection = Connection(descriptor)
    try:
        function(connection, connection.recv())
    except Exception as error:  # whatever it is, the parent is to know of it
        try:
            connection.send(LastWords.on(error))
        except OSError:
            return  # the parent is gone, and nobody is left to tell
        raise


def _end_with(parent: int, *, watched: bool) -> None:
    """Let this process end when its ``parent`` does."""
    if watched:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it had ended before
            os._exit(1)
    else:
        threading.Thread(target=_outlive, args=(parent,), daemon=True).start()


def _outlive(parent: int) -> None:
    """Wait for the end of ``parent``, and end this process."""
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGKILL)
