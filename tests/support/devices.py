"""Devices that are not here."""

from __future__ import annotations

from orin_runner.machine.device_memory import DeviceMemory
from orin_runner.machine.memory_formula import MIB


def memory(mib: int, *, cuda: bool = True) -> DeviceMemory:
    return DeviceMemory("test", mib * MIB, unified=True, cuda=cuda, present=False, note="as given")
