"""All checks, in the order in which they are shown, and what they say together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orin_runner.machine import jetson_checks, library_checks, memory_checks
from orin_runner.machine.diagnosis import Check, Machine
from orin_runner.machine.tree import Tree
from orin_runner.model.gguf_file import GGUFFile

CHECKS: tuple[Callable[[Machine], Check | None], ...] = (
    jetson_checks.module,
    jetson_checks.release,
    jetson_checks.cuda,
    library_checks.device,
    library_checks.built_with_cuda,
    library_checks.versions,
    library_checks.architectures,
    library_checks.offload,
    library_checks.bf16,
    jetson_checks.power_mode,
    jetson_checks.gpu_clock,
    jetson_checks.locked_clocks,
    jetson_checks.sm_mask,
    jetson_checks.throttling,
    library_checks.throttling,
    library_checks.pinned,
    library_checks.unified_memory,
    library_checks.launch_queues,
    library_checks.peer_access,
    memory_checks.available,
    memory_checks.container_limit,
    memory_checks.page_cache,
    memory_checks.huge_pages,
    memory_checks.swap,
    jetson_checks.desktop,
    memory_checks.direct_io,
)
"""Each looks at one thing, and says None where that does not exist on the machine or nobody has looked."""


def diagnose(machine: Machine) -> list[Check]:
    """What every check says that has something to say."""
    return [found for check in CHECKS if (found := check(machine)) is not None]


def quick_warning(file: GGUFFile, root: Path = Path("/"), nvml: Any = None) -> str | None:
    """What can be read in an instant and will make a run fail, or slower by more than 10 %, in one line.

    Args:
        file: the model.
        root: of the machine's files.
        nvml: NVML's binding; None for the real one.
    """
    return summary([check for check in diagnose(Machine.read(Tree(root), file, nvml)) if check.is_bad])


def summary(bad: Sequence[Check]) -> str | None:
    """Bad checks in one line; None where there are none."""
    if not bad:
        return None
    said = ", ".join(f"{check.name} ({check.verdict.value})" for check in bad)
    return f"{said}: orin-run doctor says why, and which command mends it"
