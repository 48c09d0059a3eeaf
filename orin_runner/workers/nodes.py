"""Which replicas run on the nodes of a cluster: what each node is asked before anything runs there, and must answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from orin_runner.errors import UserError, os_error_line
from orin_runner.machine.devices import cpu_threads
from orin_runner.machine.host_memory import HostMemory
from orin_runner.machine.seats import Seat, seats, visible_gpus
from orin_runner.model import llama_library
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.workers.cluster import Cluster, RemoteProcess
from orin_runner.workers.cluster_messages import Node
from orin_runner.workers.death import LastWords
from orin_runner.workers.messages import Refused
from orin_runner.workers.places import Place, memory_of, threads_of
from orin_runner.workers.relay import versions

END_S = 10
"""Seconds for a process to end that has given its answer."""


@dataclass(frozen=True, slots=True)
class Look:
    """Asks a node for what it has: ``gpus`` and ``replicas`` are what --gpus and --replicas say."""

    model: Path
    gpus: str
    replicas: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a node has.

    Attributes:
        digest: of its file (``GGUFFile.digest``).
        seats: where its replicas would run; ``why`` there, in one line.
        n_cpus, available: CPUs and bytes of memory that they share.
        boot: which machine it is, until that is started again.
    """

    digest: str
    seats: list[Seat]
    why: str
    n_cpus: int
    available: int
    boot: str


def look(connection: Connection, asked: Look) -> None:
    """Answer a ``Look`` with what there is on this machine, or with what is wrong."""
    try:
        file = GGUFFile.open(asked.model)
        digest = file.digest()
        found, why = seats_here(file, asked.gpus, asked.replicas)
        connection.send(Found(digest, found, why, cpu_threads(), HostMemory().available()[0], boot_id()))
    except UserError as error:
        connection.send(Refused(error.message, error.hint))
    except OSError as error:
        connection.send(Refused(os_error_line(error), "the model's file must be at the same path there"))


def boot_id() -> str:
    """What tells this machine from others, as its kernel makes it up each time that it starts."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def seats_here(file: GGUFFile, gpus: str, replicas: str) -> tuple[list[Seat], str]:
    """Seats of this machine for a model, and why, in one line; empty where there is nothing to say.

    Raises:
        UserError: there are not so many, or they do not hold the model.
    """
    cuda = llama_library.has_cuda()
    return seats(visible_gpus() if cuda else [], file.data_bytes, asked_gpus=gpus, asked_replicas=replicas, cuda=cuda)


def places_on(cluster: Cluster, file: GGUFFile, gpus: str, replicas: str) -> tuple[list[Place], list[str]]:
    """A place for each replica on each node, and why there, a line for each node that says it.

    Raises:
        UserError: a node has other versions, no such file or another one, or not what is asked for.
    """
    for node in cluster.nodes:
        check_versions(node.name, cluster.versions[node.id], versions())
    asked = Look(file.path.absolute(), gpus, replicas)
    looks = [(node, cluster.start(node, look, {}, ())) for node in cluster.nodes]
    found: list[Place] = []
    lines = []
    try:
        for _, process in looks:
            _ask(process, asked)
        for node, process in looks:
            answer = checked(node.name, _answer(process), asked.model, file.digest())
            found += places_of(cluster, node, asked.model, answer)
            lines += [f"{node.name}: {answer.why}"] if answer.why else []
    finally:
        for _, process in looks:
            process.close(END_S)
    return found, lines


def check_versions(name: str, theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """Refuse a node that would not compute the same.

    Raises:
        UserError: a version is another.
    """
    for what, version in ours.items():
        if theirs.get(what) != version:
            raise UserError(
                f"{name} has {what} {theirs.get(what, 'none')}, this machine has {version}",
                f"pip install '{what}=={version}' there",
            )


def checked(name: str, answer: Found | Refused | str, model: Path, digest: str) -> Found:
    """What a node has, if that will do.

    Args:
        name: of the node.
        answer: its; a text is what it has died of.
        model, digest: of the file that it must have.

    Raises:
        UserError: it will not do.
    """
    if isinstance(answer, str):
        raise UserError(f"{name}: {answer}", "ray status says how the nodes are")
    if isinstance(answer, Refused):
        raise UserError(f"{name}: {answer.message}", answer.hint)
    if answer.digest != digest:
        raise UserError(
            f"{name}: {model} is another file than here", "copy it there with its time of change: rsync -a, cp -p"
        )
    return answer


def places_of(cluster: Cluster, node: Node, model: Path, found: Found) -> Sequence[Place]:
    """Places on one node: on CPUs so many threads as Ray may give away there."""
    n_cpus = found.n_cpus if node.gpus or not node.cpus else min(node.cpus, found.n_cpus)
    return [
        Place(
            f"{node.name}, {seat.name}" if seat.environment or seat.cpus else node.name,
            partial(cluster.start, node, environment=seat.environment, cpus=seat.cpus),
            model,
            threads_of(seat, n_cpus, len(found.seats)),
            memory_of(seat, found.available),
            seat.gpus if found.boot == boot_id() else None,
        )
        for seat in found.seats
    ]


def _ask(process: RemoteProcess, asked: Look) -> None:
    try:
        process.connection.send(asked)
    except OSError:
        return  # it has died, which ``_answer`` finds


def _answer(process: RemoteProcess) -> Found | Refused | str:
    try:
        answer: Found | Refused | LastWords = process.connection.recv()
    except (EOFError, OSError):
        return str(process.death(None, END_S))
    return answer.text if isinstance(answer, LastWords) else answer
