"""Host memory as the kernel's ``/proc`` has it: what may still be taken, what the machine and this program hold.

Where CPU and GPU share one memory, what is in use on the whole machine is the number that counts: what CUDA takes there
is in no process's pages. ``/proc/meminfo`` is read here and nowhere else.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

PROC = Path("/proc")
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""A container's memory limit in bytes, of control groups version 2 and 1; ``max`` where there is none."""


class HostMemory:
    """The memory of the host and of one tree of processes.

    Args:
        proc: where procfs is mounted.
        pid: the process whose tree is counted (default: this one).
    """

    def __init__(self, proc: Path = PROC, pid: int | None = None) -> None:
        self._proc = proc
        self._pid = os.getpid() if pid is None else pid
        self._page = os.sysconf("SC_PAGE_SIZE")

    def available(self) -> tuple[int, str]:
        """(bytes this process may take, where the number comes from): MemAvailable, or a container's limit if lower."""
        available = self._meminfo().get("MemAvailable", 0)
        for path in CGROUP_LIMITS:
            if path.exists():
                limit = path.read_text(encoding="ascii").strip()
                if limit.isdigit() and int(limit) < available:
                    return int(limit), "the container's memory limit"
        return available, "MemAvailable"

    def machine(self) -> float | None:
        """MiB in use on the whole machine (MemTotal - MemAvailable)."""
        found = self._meminfo()
        return (found["MemTotal"] - found["MemAvailable"]) / 2**20 if len(found) == 2 else None

    def processes(self) -> tuple[float | None, frozenset[int]]:
        """(resident MiB, ids) of the process and all it started.

        None and no ids where the kernel does not list children (``CONFIG_PROC_CHILDREN``).
        """
        if not (self._proc / str(self._pid) / "task" / str(self._pid) / "children").exists():
            return None, frozenset()
        pages, pids = 0, [self._pid]
        for pid in pids:  # grows while it is walked
            resident, children = self._process(pid)
            pages += resident
            pids += children
        return pages * self._page / 2**20, frozenset(pids)

    def _meminfo(self) -> dict[str, int]:
        """Bytes of MemTotal and MemAvailable, as far as the kernel says them."""
        text = (self._proc / "meminfo").read_text(encoding="ascii")
        found = re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", text, re.MULTILINE)
        return {name: int(kib) * 1024 for name, kib in found}

    def _process(self, pid: int) -> tuple[int, list[int]]:
        """(resident pages, what it has started); nothing of a process that has just ended."""
        folder = self._proc / str(pid)
        try:
            resident = int((folder / "statm").read_text(encoding="ascii").split()[1])
            lists = [(task / "children").read_text(encoding="ascii") for task in (folder / "task").iterdir()]
        except (FileNotFoundError, ProcessLookupError):
            return 0, []
        return resident, [int(child) for text in lists for child in text.split()]
