"""What the machine's own counters say at this moment. A counter that is not there gives None.

``Reading`` is the table of counters: a field for each, with how it is read and what charts and console call it. A
sensor's own file knows how its numbers are got (``host_memory``, ``nvidia_smi``, ``jetson_rails``).

Knows nothing of runs, tasks or files of a run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from orin_runner.machine.host_memory import HostMemory
from orin_runner.machine.jetson_rails import INA3221, Rails
from orin_runner.machine.nvidia_smi import NvidiaSmi


@dataclass(frozen=True, slots=True)
class Counter:
    """A row of the table.

    Attributes:
        name: its field in ``Reading``.
        read: its value now, None where it is not known.
        unit: of its values.
        title: heading of its chart.
        holder: whose memory it is, as the console says it; None where it is no memory.
        if_unified: worth showing only where CPU and GPU share the machine's memory.
    """

    name: str
    read: Callable[[Sensors], float | None]
    unit: str
    title: str
    holder: str | None = None
    if_unified: bool = False


def _counter(read: Callable[[Sensors], float | None], unit: str, title: str, **rest: Any) -> Any:
    """A field of ``Reading`` that is a row of the table."""
    return field(default=None, metadata={"read": read, "unit": unit, "title": title, **rest})


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters at one moment, None where they are not known.

    Attributes:
        host_mib: resident memory of this program's processes; a page that several of them share counts for each.
        machine_mib: in use on the whole machine (MemTotal - MemAvailable).
        gpu_mib: in use on the GPU, by all processes.
        watts: power of the GPU's board, or of the Jetson module.
    """

    host_mib: float | None = _counter(
        lambda sensors: sensors.host.processes(without=sensors.gpu.pid if sensors.gpu else None),
        "MiB",
        "Memory of orin-run's processes",
        holder="its processes",
    )
    machine_mib: float | None = _counter(
        lambda sensors: sensors.host.machine(),
        "MiB",
        "Memory in use on the machine",
        holder="the whole machine",
        if_unified=True,
    )
    gpu_mib: float | None = _counter(
        lambda sensors: sensors.gpu_now[0],
        "MiB",
        "Memory in use on the GPU",
        holder="the GPU",
    )
    watts: float | None = _counter(lambda sensors: sensors.watts(), "W", "Power")


COUNTERS = tuple(Counter(row.name, **row.metadata) for row in fields(Reading))
"""The table, in the order of the charts."""


class Sensors:
    """All that this machine has.

    Args:
        host: host memory.
        rails: a Jetson's rails.
        gpu: a discrete GPU.

    Attributes:
        gpu_now: MiB and W of the discrete GPU when ``read`` was last called; None what is not known.
        power_source: what ``watts`` comes from; None where power is not known.
    """

    def __init__(self, host: HostMemory, rails: Rails | None = None, gpu: NvidiaSmi | None = None) -> None:
        self.host: HostMemory = host
        self.rails: Rails | None = rails
        self.gpu: NvidiaSmi | None = gpu
        self.gpu_now: tuple[float | None, float | None] = (None, None)
        self.power_source = rails.source if rails else gpu.source if gpu else None

    def read(self) -> Reading:
        """Every counter, now."""
        # Once: its memory and its power are to be those of one moment.
        self.gpu_now = self.gpu.read() if self.gpu is not None else (None, None)
        return Reading(**{counter.name: counter.read(self) for counter in COUNTERS})

    def watts(self) -> float | None:
        """Power of the Jetson module, else of the GPU's board, in W."""
        if self.rails is not None:
            return self.rails.watts()
        return self.gpu_now[1]

    def close(self) -> None:
        """End what was started to read them."""
        if self.gpu is not None:
            self.gpu.close()


def find_sensors(*, cuda: bool, ina3221: Path = INA3221) -> Sensors:
    """The sensors of this machine.

    Args:
        cuda: the run computes on an NVIDIA GPU; without it the memory and power of one have nothing to do with the run.
        ina3221: the driver's folder in sysfs.
    """
    rails = Rails.find(ina3221)
    # A Jetson's nvidia-smi knows neither memory nor power.
    gpu = NvidiaSmi.find() if cuda and rails is None else None
    return Sensors(HostMemory(), rails, gpu)
