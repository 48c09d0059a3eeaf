"""Machines for checks, and what is said of them."""

from __future__ import annotations

from orin_runner.machine.checks import diagnose
from orin_runner.machine.device_memory import DeviceMemory
from orin_runner.machine.diagnosis import Check, Machine
from orin_runner.machine.memory_formula import MIB
from orin_runner.machine.memory_plan import MemoryPlan, MemoryPlanner, Needs
from orin_runner.model.gguf_file import GGUFFile


def said(machine: Machine, name: str) -> Check:
    """The line of that name, of which there is one."""
    (check,) = [check for check in diagnose(machine) if check.name == name]
    return check


def short_plan(file: GGUFFile, missing_mib: int) -> MemoryPlan:
    """A board's plan for a model that would need so many MiB more than there are; negative where some are left."""
    device = DeviceMemory("Orin", 1 << 50, unified=True, cuda=True, present=False, note="as given")
    planner = MemoryPlanner(file, device, n_threads=1)
    needs = Needs(longest=512, tokens=512)
    # Where memory is short the smallest of all settings are planned.
    least = min(planner.sized(needs, settings, n).total for settings, n in planner.candidates(needs))
    small = DeviceMemory("Orin", least - missing_mib * MIB, unified=True, cuda=True, present=False, note="as given")
    return MemoryPlanner(file, small, n_threads=1).plan(needs)
