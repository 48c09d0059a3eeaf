"""NVML's binding over a tree of GPUs made by hand; its errors and constants are the real binding's."""
# ruff: noqa: N802 - names of calls are the binding's

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pynvml

MIB = 1 << 20


def gpu(number: int, **changes: Any) -> dict[str, Any]:
    """What NVML knows of one GPU; without a key it knows nothing of that.

    Sizes are in bytes, power in mW; ``processes`` are (id, bytes).
    """
    known = {
        "uuid": f"GPU-{'abcdef'[number] * 4}{number}111-2222",
        "name": "NVIDIA H100 80GB HBM3",
        "memory": {"total": 81559 * MIB, "reserved": 600 * MIB, "used": 20_000 * MIB},
        "power": 312_450,
        "load": 97,
        "clock": 1755,
        "temperature": 61,
        "reasons": 0,
        "capability": (9, 0),
        "cores": 16896,
        "bus": 5120,
        "most": {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 2619},
        "processes": [(4242, 19_000 * MIB)],
    }
    return {key: value for key, value in (known | changes).items() if value is not None}


class FakeNvml:
    """Stands for the module ``pynvml``.

    Args:
        gpus: as ``gpu`` makes them; tests may change them.
        old: a driver without the newer forms of the calls.

    Attributes:
        broken: calls by name that fail from now on.
        opened: how often it was opened and not shut down.
    """

    def __init__(self, *gpus: dict[str, Any], old: bool = False) -> None:
        self.gpus, self.old = list(gpus), old
        self.broken: set[str] = set()
        self.opened = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:
        self._check("nvmlInit")
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:
        self._check("nvmlDeviceGetHandleByIndex")
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, handle: dict[str, Any]) -> str:
        return str(self._known(handle, "uuid"))

    def nvmlDeviceGetName(self, handle: dict[str, Any]) -> str:
        return str(self._known(handle, "name"))

    def nvmlDeviceGetCudaComputeCapability(self, handle: dict[str, Any]) -> tuple[int, int]:
        major, minor = self._known(handle, "capability")
        return major, minor

    def nvmlDeviceGetMemoryInfo(self, handle: dict[str, Any], version: int | None = None) -> Any:
        self._newer("nvmlDeviceGetMemoryInfo", needed=version is not None)
        assert version in (None, pynvml.nvmlMemory_v2)
        memory = self._known(handle, "memory")
        free = memory["total"] - memory["reserved"] - memory["used"]
        used = memory["used"] + (memory["reserved"] if version is None else 0)
        return SimpleNamespace(total=memory["total"], free=free, used=used)

    def nvmlDeviceGetPowerUsage(self, handle: dict[str, Any]) -> int:
        self._check("nvmlDeviceGetPowerUsage")
        return int(self._known(handle, "power"))

    def nvmlDeviceGetUtilizationRates(self, handle: dict[str, Any]) -> Any:
        return SimpleNamespace(gpu=self._known(handle, "load"), memory=3)

    def nvmlDeviceGetClockInfo(self, handle: dict[str, Any], type: int) -> int:  # noqa: A002 - as the binding has it
        assert type == pynvml.NVML_CLOCK_SM
        return int(self._known(handle, "clock"))

    def nvmlDeviceGetNumGpuCores(self, device: dict[str, Any]) -> int:
        return int(self._known(device, "cores"))

    def nvmlDeviceGetMemoryBusWidth(self, device: dict[str, Any]) -> int:
        return int(self._known(device, "bus"))

    def nvmlDeviceGetMaxClockInfo(self, handle: dict[str, Any], type: int) -> int:  # noqa: A002 - as above
        return int(self._known(handle, "most")[type])

    def nvmlDeviceGetTemperature(self, handle: dict[str, Any], sensor: int) -> int:
        if not self.old:  # CUDA 14 is to be without it
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return int(self._known(handle, "temperature"))

    def nvmlDeviceGetTemperatureV(self, handle: dict[str, Any], sensor: int) -> int:
        self._newer("nvmlDeviceGetTemperatureV")
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return int(self._known(handle, "temperature"))

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: dict[str, Any]) -> int:
        self._newer("nvmlDeviceGetCurrentClocksEventReasons")
        return int(self._known(handle, "reasons"))

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: dict[str, Any]) -> int:
        return int(self._known(handle, "reasons"))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: dict[str, Any]) -> list[Any]:
        listed = self._known(handle, "processes")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in listed]

    def _check(self, call: str) -> None:
        if call in self.broken:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    def _newer(self, call: str, *, needed: bool = True) -> None:
        self._check(call)
        if self.old and needed:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)

    @staticmethod
    def _known(handle: dict[str, Any], key: str) -> Any:
        if key not in handle:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return handle[key]
