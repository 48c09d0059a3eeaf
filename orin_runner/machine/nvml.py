"""What NVIDIA's management library says: which GPUs are here, which of them CUDA would show, and their counters.

NVML asks the driver and opens no CUDA context. Its binding is imported when it is first asked: a run on a CPU needs
none. Neither a machine without the driver's library nor a GPU that does not know a counter is an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
VISIBLE = "CUDA_VISIBLE_DEVICES"
THROTTLES = (
    ("thermal", ("SwThermalSlowdown", "HwThermalSlowdown")),
    ("power cap", ("SwPowerCap",)),
    # Of what is too hot or takes too much, or of a signal of the power supply.
    ("hardware", ("HwSlowdown", "HwPowerBrakeSlowdown")),
)
"""What slows a GPU down against its will, by NVML's names of the reasons (``nvmlClocksEventReasons``)."""
UNKNOWN = ("NOT_SUPPORTED", "FUNCTION_NOT_FOUND", "NO_PERMISSION", "ARGUMENT_VERSION_MISMATCH")
"""NVML's errors that say no more than that a device, driver or user has no such counter."""


def _counter(unit: str, title: str, key: str) -> Any:
    """A field of ``GpuReading`` that has a chart: its unit, its heading, its key among all charts."""
    return field(default=None, metadata={"unit": unit, "title": title, "key": key})


@dataclass(frozen=True, slots=True)
class GpuReading:
    """Counters of one GPU at one moment, None where they are not known.

    Attributes:
        id: as ``CUDA_VISIBLE_DEVICES`` takes it, with PCI order.
        name: as its driver calls it.
        mib: MiB in use on the whole device, by all processes, without what the driver keeps for itself.
        own_mib: MiB of this program's processes; not known in a container whose process ids NVML does not see.
        watts: of its board; from Ampere on NVML's mean over the last second.
        load: percent of NVML's last period, up to a second, in which a kernel ran.
        sm_mhz: clock of its SMs.
        celsius: temperature of the chip.
        throttled: those of ``THROTTLES`` that slow it down now.
    """

    id: str
    name: str
    mib: float | None = _counter("MiB", "Memory in use on the GPU", "gpu_mib")
    own_mib: float | None = None
    watts: float | None = _counter("W", "Power", "watts")
    load: float | None = _counter("%", "Load of the GPU", "gpu_load")
    sm_mhz: float | None = _counter("MHz", "Clock of the GPU's SMs", "gpu_sm_mhz")
    celsius: float | None = _counter("°C", "Temperature of the GPU", "gpu_celsius")
    throttled: tuple[str, ...] | None = None


class Nvml:
    """NVML, as long as it is open.

    Args:
        library: its binding; None for the real one.

    Attributes:
        gpus: that the driver has, in PCI order; empty where NVML is not to be had.
        failure: the first thing that went wrong, in a line; None where nothing has. What a GPU does not know is nothing
            wrong.
    """

    def __init__(self, library: Any = None) -> None:
        if library is None:
            import pynvml  # noqa: PLC0415 - as above

            library = pynvml
        self._library = library
        self.failure: str | None = None
        self.gpus: list[NvmlGpu] = []
        try:
            library.nvmlInit()
        except library.NVMLError as error:
            self._open, self.failure = False, f"NVML: {error}"
            return
        self._open = True
        indices = range(self.ask("NVML", library.nvmlDeviceGetCount) or 0)
        found = [self.ask(f"GPU {index}", partial(NvmlGpu, self, library, index)) for index in indices]
        self.gpus = [gpu for gpu in found if gpu is not None]

    def visible(self) -> list[NvmlGpu]:
        """Those that CUDA would show this process, in its order."""
        asked = os.environ.get(VISIBLE)
        if asked is None:
            return list(self.gpus)
        found: list[NvmlGpu] = []
        for entry in map(str.strip, asked.split(",")):
            named = [gpu for gpu in self.gpus if gpu.is_called(entry)]
            if not named:
                break  # as CUDA does it: an entry that it does not know hides all that follow
            found.append(named[0])
        return found

    def ask(self, what: str, call: Callable[[], T], *older: Callable[[], T]) -> T | None:
        """The answer of ``call``, or of the first of ``older`` that this driver and device know.

        None where they know none, and where it fails, which is kept as ``failure``.
        """
        library = self._library
        try:
            return call()
        except library.NVMLError as error:
            if error.value in {getattr(library, f"NVML_ERROR_{name}") for name in UNKNOWN}:
                return self.ask(what, *older) if older else None
            self.failure = self.failure or f"{what}: {error}"
            return None

    def close(self) -> None:
        """End it; may be called again."""
        if self._open:
            self._open = False
            self.ask("NVML", self._library.nvmlShutdown)


class NvmlGpu:
    """A GPU as NVML sees it.

    Attributes:
        id, uuid, name: as ``CUDA_VISIBLE_DEVICES`` takes it with PCI order, and as its driver calls it.
    """

    def __init__(self, nvml: Nvml, library: Any, index: int) -> None:
        self._nvml, self._library = nvml, library
        self._handle = library.nvmlDeviceGetHandleByIndex(index)
        self.id = str(index)
        self.uuid: str = library.nvmlDeviceGetUUID(self._handle)
        self.name: str = library.nvmlDeviceGetName(self._handle)

    def is_called(self, entry: str) -> bool:
        """Whether an entry of ``CUDA_VISIBLE_DEVICES`` names it: its id, or the beginning of its UUID."""
        return entry == self.id or (entry.startswith("GPU-") and self.uuid.startswith(entry))

    def free(self) -> int | None:
        """Bytes that nobody uses; None where the GPU has no memory of its own."""
        memory = self._memory()
        return None if memory is None else int(memory.free)

    def capability(self) -> tuple[int, int] | None:
        """Its CUDA compute capability, such as (8, 7)."""
        found = self._ask("compute capability", lambda: self._library.nvmlDeviceGetCudaComputeCapability(self._handle))
        return None if found is None else (int(found[0]), int(found[1]))

    def cores(self) -> int | None:
        """Its CUDA cores."""
        return self._ask("cores", lambda: int(self._library.nvmlDeviceGetNumGpuCores(self._handle)))

    def most_sm_mhz(self) -> float | None:
        """The highest clock of its SMs."""
        return self._most_mhz("clock", self._library.NVML_CLOCK_SM)

    def bandwidth(self) -> float | None:
        """Bytes/s of its memory: bits of the bus x clock x 2, as all of its kinds move data twice in a clock."""
        bits = self._ask("memory bus", lambda: int(self._library.nvmlDeviceGetMemoryBusWidth(self._handle)))
        mhz = self._most_mhz("memory clock", self._library.NVML_CLOCK_MEM)
        return None if bits is None or mhz is None else bits / 8 * mhz * 1e6 * 2

    def read(self, pids: Collection[int]) -> GpuReading:
        """Its counters now; ``pids`` are this program's processes."""
        library, handle = self._library, self._handle
        memory = self._memory()
        milliwatts = self._ask("power", lambda: library.nvmlDeviceGetPowerUsage(handle))
        rates = self._ask("load", lambda: library.nvmlDeviceGetUtilizationRates(handle))
        return GpuReading(
            id=self.id,
            name=self.name,
            mib=None if memory is None else memory.used / 2**20,
            own_mib=self._own_mib(pids),
            watts=None if milliwatts is None else milliwatts / 1000,
            load=None if rates is None else float(rates.gpu),
            sm_mhz=self._ask("clock", lambda: float(library.nvmlDeviceGetClockInfo(handle, library.NVML_CLOCK_SM))),
            celsius=self._ask(
                "temperature",
                *(
                    lambda call=call: float(call(handle, library.NVML_TEMPERATURE_GPU))
                    for call in (library.nvmlDeviceGetTemperature, library.nvmlDeviceGetTemperatureV)
                ),
            ),
            throttled=self._throttled(),
        )

    def _most_mhz(self, what: str, clock: int) -> float | None:
        return self._ask(what, lambda: float(self._library.nvmlDeviceGetMaxClockInfo(self._handle, clock)))

    def _memory(self) -> Any:
        """``total``, ``free`` and ``used`` bytes. The older form counts what the driver keeps for itself as used."""
        library, handle = self._library, self._handle
        return self._ask(
            "memory",
            lambda: library.nvmlDeviceGetMemoryInfo(handle, library.nvmlMemory_v2),
            lambda: library.nvmlDeviceGetMemoryInfo(handle),
        )

    def _own_mib(self, pids: Collection[int]) -> float | None:
        listed: Sequence[Any] = (
            self._ask("processes", lambda: self._library.nvmlDeviceGetComputeRunningProcesses(self._handle)) or ()
        )
        own = [process.usedGpuMemory for process in listed if process.pid in pids]
        # None of ours: their ids are those of another namespace.
        return sum(own) / 2**20 if own and None not in own else None

    def _throttled(self) -> tuple[str, ...] | None:
        library, handle = self._library, self._handle
        reasons = self._ask(
            "throttling",
            lambda: library.nvmlDeviceGetCurrentClocksEventReasons(handle),
            lambda: library.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        )
        if reasons is None:
            return None
        return tuple(
            name
            for name, bits in THROTTLES
            if any(reasons & getattr(library, f"nvmlClocksEventReason{bit}") for bit in bits)
        )

    def _ask(self, what: str, *calls: Callable[[], T]) -> T | None:
        return self._nvml.ask(f"{what} of GPU {self.id}", *calls)
