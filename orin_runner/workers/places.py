"""Where a replica runs, on this machine or on another, and how its worker gets there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from orin_runner.machine.devices import cpu_threads
from orin_runner.machine.host_memory import HostMemory
from orin_runner.machine.seats import Seat
from orin_runner.workers.messages import Job
from orin_runner.workers.process import Function, Process, WorkerProcess


@dataclass(frozen=True, slots=True)
class Place:
    """Where one replica runs.

    Attributes:
        name: as shown.
        spawn: starts a process there.
        model: the GGUF there.
        n_threads: CPU threads.
        memory: bytes to plan for where several share a memory; None for what is free.
        gpus: ids of its GPUs, of this machine's; empty for the CPU, or for whatever llama.cpp finds; None where it is
            on another machine.
    """

    name: str
    spawn: Callable[[Function], Process]
    model: Path
    n_threads: int
    memory: int | None
    gpus: tuple[str, ...] | None

    def job(self, job: Job) -> Job:
        """``job``, to be done here."""
        memory = self.memory if job.device_bytes is None else job.device_bytes
        return replace(job, model=self.model, n_threads=self.n_threads, device_bytes=memory)


def gpus_here(places: Iterable[Place]) -> list[str] | None:
    """Ids of this machine's GPUs that ``places`` have; empty for whatever llama.cpp finds, None where none is here."""
    here = [place.gpus for place in places if place.gpus is not None]
    return [gpu for gpus in here for gpu in gpus] if here else None


def threads_of(seat: Seat, n_cpus: int, n_seats: int) -> int:
    """CPU threads of one of ``n_seats`` seats of a machine of ``n_cpus``."""
    return len(seat.cpus) or max(1, n_cpus // n_seats)


def memory_of(seat: Seat, available: int) -> int | None:
    """Bytes to plan for on a seat of a machine with ``available`` bytes; None for what is free."""
    return int(seat.share * available) if seat.share < 1 else None


def places_here(model: Path, seats: list[Seat]) -> list[Place]:
    """The places of these seats of this machine."""
    n_cpus, available = cpu_threads(), HostMemory().available()[0]
    return [
        Place(
            seat.name,
            partial(WorkerProcess, environment=seat.environment, cpus=seat.cpus),
            model,
            threads_of(seat, n_cpus, len(seats)),
            memory_of(seat, available),
            seat.gpus,
        )
        for seat in seats
    ]
