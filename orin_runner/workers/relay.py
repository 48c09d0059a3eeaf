"""The end on another machine: starts processes there, and passes bytes to them and from them.

It knows neither what it passes nor by whom it is called, and imports nothing heavy: it opens no GPU.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import metadata

from orin_runner.version import __version__
from orin_runner.workers.cluster_messages import Ended, Start
from orin_runner.workers.process import WorkerProcess

LOOK_S = 0.5
"""How long one call of ``take`` waits for the first message."""
AT_ONCE = 256
"""Messages that one call brings at most."""
END_S = 10
"""Seconds a process has to end after it has closed its pipe."""


def versions() -> dict[str, str]:
    """Of what has to be the same on all machines of a run; none of it is imported for that."""
    try:
        llama = metadata.version("llama-cpp-python")
    except metadata.PackageNotFoundError:
        llama = "none"
    return {"orin-run": __version__, "llama-cpp-python": llama}


class Relay:
    """Processes on this machine, each known by a number. Its methods are called from several threads."""

    def __init__(self) -> None:
        self._processes: dict[int, WorkerProcess] = {}
        self._killed: set[int] = set()

    def versions(self) -> dict[str, str]:
        return versions()

    def start(self, asked: Start) -> None:
        """Start a process; at once killed where that was asked before."""
        process = WorkerProcess(asked.function, environment=asked.environment, cpus=asked.cpus)
        self._processes[asked.number] = process
        if asked.number in self._killed:
            process.kill()

    def send(self, number: int, message: bytes) -> None:
        """Pass a message on; lost where the process has ended, which ``take`` tells."""
        process = self._processes.get(number)
        if process is not None:
            with suppress(OSError):
                process.connection.send_bytes(message)

    def take(self, number: int) -> tuple[list[bytes], Ended | None]:
        """What the process has said since, perhaps nothing, and how it ended if it has: then it is gone from here.

        Only one thread may call this for a process.
        """
        process = self._processes[number]
        found: list[bytes] = []
        try:
            while len(found) < AT_ONCE and process.connection.poll(0 if found else LOOK_S):
                found.append(process.connection.recv_bytes())
        except (EOFError, OSError):  # also amid a message
            code = process.wait(END_S)
            ended = Ended(code, process.output)
            del self._processes[number]
            process.close(END_S)
            return found, ended
        return found, None

    def kill(self, number: int) -> None:
        """End a process, or keep it from being started."""
        self._killed.add(number)
        process = self._processes.get(number)
        if process is not None:
            process.kill()
