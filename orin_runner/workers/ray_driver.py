"""The process that talks to Ray: it holds the nodes, and passes messages between them and the parent.

A process of its own because Ray writes to standard error, takes over the handling of signals, retries for minutes and
ends its process when it loses the cluster. The one module that imports Ray.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orin_runner.errors import first_line
from orin_runner.workers.cluster_messages import Connect, Connected, Ended, Held, Kill, NoCluster, Node, Start
from orin_runner.workers.relay import Relay

TCP_S = 5
"""Seconds for the machine of an address to take a connection."""
HOLD_S = 60
"""Seconds for all nodes to start a relay: Ray waits without a bound where others hold what is asked for."""
CALLS = 64
"""Calls that a relay takes at once: of each process on its node one that waits for messages, and some more."""
STATUS = "ray status says how it is; this machine must be one of its nodes (ray start --address=HOST:PORT)"


def serve(connection: Connection, asked: Connect) -> None:
    """Connect, hold the nodes, start what is asked for, until the other end closes."""
    try:
        nodes = _nodes(asked.address)
        connection.send(Connected(tuple(nodes)))
        relays = {node.id: _relay(node, asked.gpus) for node in nodes}
        connection.send(Held(_versions(nodes, relays)))
    except _NoClusterError as error:
        connection.send(NoCluster(error.message, error.hint))
        return
    homes: dict[int, Any] = {}  # by a process's number, the relay on its node
    with suppress(EOFError):
        while True:
            message = connection.recv()
            if isinstance(message, Kill):
                if message.number in homes:
                    homes[message.number].kill.remote(message.number)
                continue
            start: Start = message
            pipe = Connection(recv_handle(connection))
            relay = homes[start.number] = relays[start.node]
            threading.Thread(target=_serve_process, args=(relay, start, pipe), daemon=True).start()
    ray.shutdown()


def _nodes(address: str) -> list[Node]:
    """Connect to the cluster; its nodes that have CPUs or GPUs to give away."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:  # Ray itself would try for more than a minute
            socket.create_connection((host.strip("[]"), int(port)), timeout=TCP_S).close()
        except OSError as error:
            raise _NoClusterError(f"no Ray cluster answers at {address} ({error.strerror or error})", STATUS) from error
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level=logging.CRITICAL)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        where = "on this machine" if address == "auto" else f"at {address}"
        raise _NoClusterError(f"no Ray cluster answers {where} ({' '.join(str(error).split())})", STATUS) from error
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Ray has set it; the parent decides about our end
    alive = [each for each in ray.nodes() if each["Alive"]]
    hosts = [str(each["NodeManagerAddress"]) for each in alive]
    found = []
    for each, host in zip(alive, hosts, strict=True):
        has = each["Resources"]
        name = f"node {host}" if hosts.count(host) == 1 else f"node {host}:{each['NodeManagerPort']}"
        found.append(Node(each["NodeID"], name, int(has.get("CPU", 0)), int(has.get("GPU", 0))))
    usable = sorted((node for node in found if node.cpus or node.gpus), key=lambda node: node.name)
    if not usable:
        raise _NoClusterError("no node of the Ray cluster has CPUs or GPUs to give away", STATUS)
    return usable


def _relay(node: Node, n_gpus: int | None) -> Any:
    """A relay on a node, which takes what it has from Ray's other users: its GPUs, or where it has none its CPUs."""
    gpus = node.gpus if n_gpus is None else min(n_gpus, node.gpus)
    options = {
        "num_cpus": 0 if gpus else node.cpus,
        "num_gpus": gpus,
        "max_concurrency": CALLS,
        "max_restarts": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False),
    }
    return ray.remote(Relay).options(**options).remote()


def _versions(nodes: list[Node], relays: dict[str, Any]) -> dict[str, dict[str, str]]:
    """What is installed on each node; as soon as they say it their relays run."""
    asked = [(node, relays[node.id].versions.remote()) for node in nodes]
    deadline = time.monotonic() + HOLD_S
    return {node.id: _answered(node, answer, deadline) for node, answer in asked}


def _answered(node: Node, answer: Any, deadline: float) -> dict[str, str]:
    try:
        found: dict[str, str] = ray.get(answer, timeout=max(0.0, deadline - time.monotonic()))
    except GetTimeoutError as error:
        what = f"its {node.gpus} GPUs" if node.gpus else f"its {node.cpus} CPUs"
        reason = f"{node.name}: Ray has not given us {what} within {HOLD_S} seconds"
        raise _NoClusterError(reason, "ray status says who has them") from error
    except RayError as error:
        last = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
        missing = "ModuleNotFoundError" in str(error)  # of a node that was lost just now Ray may not know it yet
        hint = "pip install 'orin-run[ray]' there" if missing else "ray status says how the nodes are"
        raise _NoClusterError(f"{node.name}: orin-run cannot be started there ({last})", hint) from error
    return found


def _serve_process(relay: Any, start: Start, pipe: Connection) -> None:
    """Start a process, and pass messages both ways until it has ended or its node is gone."""
    ended: Ended | None = None
    try:
        ray.get(relay.start.remote(start))
        threading.Thread(target=_to_node, args=(relay, start.number, pipe), daemon=True).start()
        while ended is None:
            messages, ended = ray.get(relay.take.remote(start.number))
            with suppress(OSError):  # the parent listens no more: it will have asked for the end
                for message in messages:
                    pipe.send(message)
    except RayError as error:
        ended = Ended(None, first_line(error))
    with suppress(OSError):
        pipe.send(ended)


def _to_node(relay: Any, number: int, pipe: Connection) -> None:
    """Pass on what the parent says until it has closed its end."""
    for message in _received(pipe):
        with suppress(RayError):  # the thread that listens to the process hears of it, too
            ray.get(relay.send.remote(number, message))


def _received(pipe: Connection) -> Iterator[bytes]:
    with suppress(EOFError, OSError):
        while True:
            yield pipe.recv()


class _NoClusterError(Exception):
    """What ``NoCluster`` says."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint
