"""The machine's memory, as a plan needs it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from orin_runner.machine.memory_plan import MIB, ORIN_32GB, DeviceMemory
from orin_runner.model import llama

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
KNOWN = {"orin-32gb": ORIN_32GB}


def host_available() -> tuple[int, str]:
    """(bytes this process may take, where the number comes from): MemAvailable, or a container's limit if lower."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    available = int(found[1]) * 1024 if found else 0
    for path in CGROUP_LIMITS:
        if path.exists():
            limit = path.read_text(encoding="ascii").strip()
            if limit.isdigit() and int(limit) < available:
                return int(limit), "the container's memory limit"
    return available, "MemAvailable"


def present_device(device_bytes: int | None = None) -> DeviceMemory:
    """The device a run would use on this machine.

    Args:
        device_bytes: plan for this much instead of what is free.
    """
    gpus = [device for device in llama.devices() if device.is_gpu]
    host, source = host_available()
    if not gpus:
        return DeviceMemory("CPU", device_bytes or host, unified=True, cuda=False, present=True, note=source)
    gpu = gpus[0]
    unified = Path("/etc/nv_tegra_release").exists()
    # On an integrated GPU the driver's free memory is the host's.
    free, source = (host, source) if unified else (gpu.free, "free, as the driver reports")
    name = f"{gpu.name} ({gpu.description})"
    note = "as given" if device_bytes else source
    return DeviceMemory(name, device_bytes or free, unified=unified, cuda=True, present=True, note=note)


def cpu_threads() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0))


def parse_size(text: str) -> int | None:
    """Bytes of ``29000MiB``, ``28GiB``, ``31000000000``; None where ``text`` is no size."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|)", text)
    if not found:
        return None
    return int(float(found[1]) * {"B": 1, "": 1, "KiB": 1 << 10, "MiB": MIB, "GiB": 1 << 30}[found[2]])
