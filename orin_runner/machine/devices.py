"""The devices that a plan can be made for: this machine's, and known ones that are not here."""

from __future__ import annotations

import math
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
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": MIB, "GiB": 1 << 30}
GIVEN = "as given"


def present_device(device_bytes: int | None = None) -> DeviceMemory:
    """The device a run would use on this machine: its first GPU, else its CPU.

    Args:
        device_bytes: plan for this much instead of what is free.
    """
    gpus = [device for device in llama.devices() if device.is_gpu]
    host, source = HostMemory().available()
    if not gpus:
        available, note = (host, source) if device_bytes is None else (device_bytes, GIVEN)
        return DeviceMemory("CPU", available, unified=True, cuda=False, present=True, note=note)
    gpu = gpus[0]
    unified = Path("/etc/nv_tegra_release").exists()
    # On an integrated GPU the driver's free memory is the host's.
    free, source = (host, source) if unified else (gpu.free, "free, as the driver reports")
    name = f"{gpu.name} ({gpu.description})"
    available, note = (free, source) if device_bytes is None else (device_bytes, GIVEN)
    return DeviceMemory(name, available, unified=unified, cuda=True, present=True, note=note)


def cpu_threads() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0))


def parse_size(text: str) -> int | None:
    """Bytes of ``29000MiB``, ``28GiB``, ``31000000000B``; None where ``text`` is no number with one of ``UNITS``.

    Nothing has 8 EiB or more: that is no size either.
    """
    found = re.fullmatch(rf"([0-9]+(?:\.[0-9]+)?)\s*({'|'.join(UNITS)})", text)
    size = float(found[1]) * UNITS[found[2]] if found else math.inf
    return int(size) if size < 1 << 63 else None
