"""When this process began, as the kernel has it."""

from __future__ import annotations

import os
import time
from pathlib import Path

STAT = Path("/proc/self/stat")
START_TIME = 22
"""Field of ``/proc/PID/stat``: clock ticks from boot to the start of the process (``man 5 proc``)."""


def process_started(stat: Path = STAT) -> float:
    """The start of this process on the scale of ``time.perf_counter``, in seconds; exact to a clock tick (10 ms)."""
    # The second field, the program's name in parentheses, may hold spaces.
    fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    started = int(fields[START_TIME - 3]) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter() - (time.clock_gettime(time.CLOCK_BOOTTIME) - started)
