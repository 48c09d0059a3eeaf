"""The parent's end of processes that run on the nodes of a Ray cluster. Without Ray itself: see ``ray_driver``."""

from __future__ import annotations

import importlib.util
import itertools
import multiprocessing
import os
import pickle
import re
import socket
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler, send_handle
from types import TracebackType
from typing import Any

from orin_runner.errors import UserError
from orin_runner.workers.cluster_messages import Connect, Connected, Ended, Held, Kill, NoCluster, Node, Start
from orin_runner.workers.death import Death, LastWords
from orin_runner.workers.process import Channel, Function, WorkerProcess, place_of

DRIVER = "orin_runner.workers.ray_driver:serve"
ADDRESS = re.compile(r"[^\s/]+:([0-9]{1,5})")
PORTS = range(1, 1 << 16)
CONNECT_S = 20.0
"""Seconds for Ray to connect: it takes one or two, and goes on trying for minutes where there is no cluster."""
END_S = 10
"""Seconds for Ray's process to end."""


class Cluster:
    """The nodes of a Ray cluster, held as long as this is entered.

    Args:
        address: ``HOST:PORT`` of the cluster; ``auto`` for the one that this machine belongs to.
        gpus: how many of each node's GPUs to hold; None for all.

    Attributes:
        nodes: those with CPUs or GPUs to give away.
        versions: of what is installed on each, by the node's id.

    Raises:
        UserError: by entering: Ray is not installed, does not answer, or a node cannot be held.
    """

    def __init__(self, address: str, gpus: int | None) -> None:
        self._asked = Connect(address, gpus)
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.nodes: tuple[Node, ...] = ()
        self.versions: dict[str, dict[str, str]] = {}
        self._driver: WorkerProcess

    def __enter__(self) -> Cluster:
        address = self._asked.address
        if not (address == "auto" or ((found := ADDRESS.fullmatch(address)) and int(found[1]) in PORTS)):
            raise UserError(f"--ray {address} is neither auto nor HOST:PORT", "the address that ray start has printed")
        if importlib.util.find_spec("ray") is None:
            raise UserError("--ray needs Ray, which is not installed", "pip install 'orin-run[ray]'")
        self._driver = WorkerProcess(DRIVER)
        try:
            self._driver.connection.send(self._asked)
            if not self._driver.connection.poll(CONNECT_S):
                where = "this machine's Ray cluster" if address == "auto" else f"the Ray cluster at {address}"
                raise UserError(
                    f"{where} does not answer within {CONNECT_S:.0f} seconds",
                    "ray status says how it is; this machine must be one of its nodes",
                )
            self.nodes = self._answer(Connected).nodes
            self.versions = self._answer(Held).versions
        except BaseException:
            self._driver.kill()
            self.close()
            raise
        return self

    def _answer(self, kind: type[Any]) -> Any:
        try:
            answer = self._driver.connection.recv()
        except (EOFError, ConnectionResetError):
            answer = LastWords(str(self._driver.death(None, END_S)))
        if isinstance(answer, LastWords):
            raise UserError(f"Ray has died ({answer.text})", "ray status says how it is")
        if isinstance(answer, NoCluster):
            raise UserError(answer.message, answer.hint)
        assert isinstance(answer, kind)
        return answer

    def close(self) -> None:
        """End all that runs on the nodes, and leave the cluster."""
        self._driver.close(END_S)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(
        self, node: Node, function: Function | str, environment: dict[str, str], cpus: tuple[int, ...]
    ) -> RemoteProcess:
        """A process on ``node``, as ``WorkerProcess`` takes it; what cannot be started has died."""
        ours, theirs = multiprocessing.Pipe()
        with theirs, self._lock, suppress(OSError):
            number = next(self._numbers)
            self._driver.connection.send(Start(number, node.id, place_of(function), environment, cpus))
            send_handle(self._driver.connection, theirs.fileno(), 0)
        return RemoteProcess(self, number, ours)

    def kill(self, number: int) -> None:
        """End the process of that number."""
        with self._lock, suppress(OSError):
            self._driver.connection.send(Kill(number))


class RemoteProcess:
    """A process on a node (``orin_runner.workers.process.Process``); made by ``Cluster.start``."""

    def __init__(self, cluster: Cluster, number: int, pipe: Connection) -> None:
        self._cluster, self._number, self._pipe = cluster, number, pipe
        self._channel = _Channel(pipe)

    @property
    def connection(self) -> Channel:
        return self._channel

    @property
    def output(self) -> str:
        return self._channel.ended.output

    def death(self, said: str | None, patience_s: float) -> Death:  # noqa: ARG002 - it has ended
        """What it died of; final where nobody on its node can tell."""
        ended = self._channel.ended
        if ended.code is None:
            return Death("lost", "the engine's node is gone, or Ray's process on it", final=True)
        return Death.of(ended.code, said, ended.output)

    def kill(self) -> None:
        """End it at once: whoever listens to it hears its end, even where the node does not answer."""
        self._cluster.kill(self._number)
        with suppress(OSError), socket.socket(fileno=os.dup(self._pipe.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)

    def dismiss(self) -> None:
        """Nothing to do: ``close`` does not wait."""

    def close(self, patience_s: float) -> None:  # noqa: ARG002 - see below
        """End it. It holds nothing that would be missed, so it is given no time."""
        self._cluster.kill(self._number)
        self._pipe.close()


class _Channel:
    """Objects over a pipe that carries bytes until an ``Ended``."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.ended = Ended(None)

    def send(self, message: Any, /) -> None:
        """As ``Connection.send``."""
        self._pipe.send(bytes(ForkingPickler.dumps(message)))

    def recv(self) -> Any:
        """As ``Connection.recv``."""
        message = self._pipe.recv()
        if isinstance(message, Ended):
            self.ended = message
            raise EOFError
        return pickle.loads(message)  # noqa: S301 - from our own process on the node
