"""The devices that a plan can be made for: this machine's, and known ones that are not here."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

from orin_runner.machine.device_memory import DeviceMemory, GpuMemory
from orin_runner.machine.host_memory import HostMemory
from orin_runner.machine.memory_formula import MIB
from orin_runner.model import llama_library

HEADLESS = 1300
"""MiB that Linux without a desktop takes, assumed."""


def _agx_orin(size: str, seen: int) -> DeviceMemory:
    """A module that is not here; ``seen``: MiB that Linux sees of its memory, as ``tegrastats`` says."""
    return DeviceMemory(
        name=f"Jetson AGX Orin {size}",
        available=(seen - HEADLESS) * MIB,
        unified=True,
        cuda=True,
        present=False,
        note=f"{seen:,} MiB seen by Linux under JetPack 6, less {HEADLESS:,} MiB for a headless system (assumed)",
    )


KNOWN = {"orin-32gb": _agx_orin("32GB", 30697), "orin-64gb": _agx_orin("64GB", 62841)}
"""By the name that ``--device`` takes."""
UNITS = {
    "b": 1,
    "k": 1 << 10,
    "m": MIB,
    "g": 1 << 30,
    "kib": 1 << 10,
    "mib": MIB,
    "gib": 1 << 30,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
}
"""Bytes by the name of a unit, in small letters."""
GIVEN = "as given"


def present_device(device_bytes: int | None = None) -> DeviceMemory:
    """What a run would use on this machine: the GPUs that are visible to it, else its CPU.

    Args:
        device_bytes: plan for this much instead of what is free; of several GPUs, on each.
    """
    gpus = [device for device in llama_library.devices() if device.is_gpu]
    host, source = HostMemory().available()
    if not gpus:
        available, note = (host, source) if device_bytes is None else (device_bytes, GIVEN)
        return DeviceMemory("CPU", available, unified=True, cuda=False, present=True, note=note)
    gpu = gpus[0]
    unified = shares_memory()
    # On an integrated GPU the driver's free memory is the host's.
    free, source = (host, source) if unified else (gpu.free, "free, as the driver reports")
    name = f"{gpu.name} ({gpu.description})"
    if len(gpus) > 1:
        each = tuple(GpuMemory(gpu.name, gpu.free if device_bytes is None else device_bytes) for gpu in gpus)
        name = f"{', '.join(gpu.name for gpu in gpus)} ({gpu.description})"
        note = "free, as the driver reports" if device_bytes is None else f"{GIVEN}, on each"
        available = sum(gpu.available for gpu in each)
        return DeviceMemory(name, available, unified=False, cuda=True, present=True, note=note, gpus=each)
    available, note = (free, source) if device_bytes is None else (device_bytes, GIVEN)
    return DeviceMemory(name, available, unified=unified, cuda=True, present=True, note=note)


def shares_memory() -> bool:
    """Whether this machine's GPU shares its memory, as a Jetson's does: the file is L4T's."""
    return Path("/etc/nv_tegra_release").exists()


def cpu_threads() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0))


def parse_size(text: str) -> int | None:
    """Bytes of ``28G`` or ``28GiB`` (powers of 1,024), ``30GB`` (of 1,000), ``31000000000B``.

    None where ``text`` is no number with one of ``UNITS``, whose letters may be small or large. Nothing has 8 EiB or
    more: that is no size either.
    """
    form = rf"([0-9]+(?:\.[0-9]+)?)\s*({'|'.join(UNITS)})"
    found = re.fullmatch(form, text, re.IGNORECASE | re.ASCII)
    size = float(found[1]) * UNITS[found[2].lower()] if found else math.inf
    return int(size) if size < 1 << 63 else None
