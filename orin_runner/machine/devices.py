"""The devices that a plan can be made for: this machine's, and known ones that are not here."""

from __future__ import annotations

import os
import re
from pathlib import Path

from orin_runner.machine.host_memory import HostMemory
from orin_runner.machine.memory_formula import MIB
from orin_runner.machine.memory_plan import DeviceMemory
from orin_runner.model import llama

KNOWN = {
    "orin-32gb": DeviceMemory(
        name="Jetson AGX Orin 32GB",
        available=(30697 - 1300) * MIB,
        unified=True,
        cuda=True,
        present=False,
        note="30,697 MiB seen by Linux under JetPack 6, less 1,300 MiB for a headless system (assumed)",
    )
}
"""By the name that ``--device`` takes."""


def present_device(device_bytes: int | None = None) -> DeviceMemory:
    """The device a run would use on this machine: its first GPU, else its CPU.

    Args:
        device_bytes: plan for this much instead of what is free.
    """
    gpus = [device for device in llama.devices() if device.is_gpu]
    host, source = HostMemory().available()
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
