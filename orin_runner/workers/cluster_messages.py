"""What the parent and the process that talks to Ray say to each other, in the order in which it is said.

The parent sends ``Connect``. The answer is ``Connected`` and then ``Held``, or ``NoCluster`` instead of either. Then
the parent sends ``Start``, each followed by a file descriptor: the end of a pipe of the process's own, over which
messages pass as bytes until an ``Ended``. ``Kill`` may come at any time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Connect:
    """Asks for a cluster and for its nodes.

    Attributes:
        address: ``HOST:PORT``, or ``auto``.
        gpus: how many of each node's GPUs to hold; None for all.
    """

    address: str
    gpus: int | None


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster.

    Attributes:
        id: Ray's.
        name: as shown.
        cpus, gpus: that Ray may give away there.
    """

    id: str
    name: str
    cpus: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Connected:
    """The cluster answers; these are its nodes, those with nothing to give away left out."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A relay runs on each of these nodes; ``versions`` are those of what is installed there, by the node's id."""

    versions: dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class NoCluster:
    """What was asked for is not to be had, and why; ``hint`` is what to try next."""

    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Start:
    """Asks for a process on a node, as ``WorkerProcess`` takes it; ``number`` names it from then on."""

    number: int
    node: str
    function: str
    environment: dict[str, str]
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kill:
    """Asks for a process's end."""

    number: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A process has ended.

    Attributes:
        code: its exit status as ``subprocess`` has it; None where nobody is left who could tell.
        output: the end of what it wrote.
    """

    code: int | None
    output: str = ""
