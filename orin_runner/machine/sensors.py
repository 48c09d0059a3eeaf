"""What the machine's own counters say at this moment. A counter that is not there gives None.

``Reading`` is the table of counters: a field for each, with how it is read and what charts and console call it. A
sensor's own file knows how its numbers are got (``host_memory``, ``nvml``, ``jetson_rails``). What is known of each GPU
apart stands beside the table's totals (``GpuReading``).

Knows nothing of runs, tasks or files of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from orin_runner.machine.host_memory import HostMemory
from orin_runner.machine.jetson_rails import INA3221, Rails
from orin_runner.machine.nvml import GpuReading, Nvml, NvmlGpu


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
        gpu_mib: in use by all processes on that of the run's GPUs where most is.
        watts: power of the run's GPUs together, or of the Jetson module.
        gpus: each of the run's GPUs.
    """

    host_mib: float | None = _counter(
        lambda sensors: sensors.processes_now,
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
        lambda sensors: _of_all(max, (gpu.mib for gpu in sensors.gpus_now)),
        "MiB",
        "Memory in use on the GPU",
        holder="the GPU",
    )
    watts: float | None = _counter(lambda sensors: sensors.watts(), "W", "Power")
    gpus: tuple[GpuReading, ...] = ()

    def gpu(self, gpu_id: str, name: str) -> GpuReading | None:
        """That of ``gpus`` with this id and name."""
        return next((gpu for gpu in self.gpus if (gpu.id, gpu.name) == (gpu_id, name)), None)

    def numbers(self) -> Iterator[float | None]:
        """All values of counters."""
        readings: tuple[Reading | GpuReading, ...] = (self, *self.gpus)
        for reading in readings:
            for row in fields(reading):
                if not isinstance(value := getattr(reading, row.name), (str, tuple)):
                    yield value


COUNTERS = tuple(Counter(row.name, **row.metadata) for row in fields(Reading) if row.metadata)
"""The table, in the order of the charts."""


@dataclass(frozen=True, slots=True)
class GpuCounter:
    """A counter of each GPU that has a chart.

    Attributes:
        name: its field in ``GpuReading``.
        key: of its chart; that of a ``Counter`` where this is what the total is made of.
        unit: of its values.
        title: heading of its chart.
    """

    name: str
    key: str
    unit: str
    title: str


GPU_COUNTERS = tuple(GpuCounter(row.name, **row.metadata) for row in fields(GpuReading) if row.metadata)
"""In the order of the charts."""


class Sensors:
    """All that this machine has.

    Args:
        host: host memory.
        rails: a Jetson's rails.
        nvml: closed with the sensors.
        gpus: those of ``nvml`` that are read.

    Attributes:
        processes_now: MiB of this program's processes when ``read`` was last called.
        gpus_now: of each GPU, likewise.
        power_source: what ``watts`` comes from; None where power is not known.
    """

    def __init__(
        self, host: HostMemory, rails: Rails | None = None, nvml: Nvml | None = None, gpus: Iterable[NvmlGpu] = ()
    ) -> None:
        self.host: HostMemory = host
        self.rails: Rails | None = rails
        self._nvml, self._gpus = nvml, tuple(gpus)
        self.processes_now: float | None = None
        self.gpus_now: tuple[GpuReading, ...] = ()
        names = " + ".join(f"GPU {gpu.id}" for gpu in self._gpus)
        self.power_source = rails.source if rails else f"NVML {names}" if names else None

    @property
    def failure(self) -> str | None:
        """The first thing that went wrong with them, in a line."""
        return None if self._nvml is None else self._nvml.failure

    def read(self) -> Reading:
        """Every counter, now."""
        # Once: the totals and what they are made of are to be of one moment.
        self.processes_now, pids = self.host.processes()
        self.gpus_now = tuple(gpu.read(pids) for gpu in self._gpus)
        return Reading(**{counter.name: counter.read(self) for counter in COUNTERS}, gpus=self.gpus_now)

    def watts(self) -> float | None:
        """Power of the Jetson module, else of the GPUs' boards, in W."""
        if self.rails is not None:
            return self.rails.watts()
        return _of_all(sum, (gpu.watts for gpu in self.gpus_now))

    def close(self) -> None:
        """End what was started to read them."""
        if self._nvml is not None:
            self._nvml.close()


def find_sensors(
    *, cuda: bool, gpus: Collection[str] | None = (), ina3221: Path = INA3221, library: Any = None
) -> Sensors:
    """The sensors of this machine.

    Args:
        cuda: the run computes on NVIDIA GPUs; without it their memory and power have nothing to do with the run.
        gpus: ids of those of this machine that it computes on; empty for all that CUDA would show, None for none.
        ina3221: the driver's folder in sysfs.
        library: NVML's binding; None for the real one.
    """
    rails = Rails.find(ina3221)
    # A Jetson's NVML knows neither memory nor power.
    if not cuda or gpus is None or rails is not None:
        return Sensors(HostMemory(), rails)
    nvml = Nvml(library)
    return Sensors(HostMemory(), None, nvml, [gpu for gpu in nvml.gpus if gpu.id in gpus] if gpus else nvml.visible())


def _of_all(total: Callable[[list[float]], float], values: Iterable[float | None]) -> float | None:
    """``total`` of ``values``; None where one of them is not known, or there are none."""
    found = list(values)
    known = [value for value in found if value is not None]
    return total(known) if found and len(known) == len(found) else None
