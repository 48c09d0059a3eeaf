"""Host memory as the kernel's ``/proc`` has it: what may still be taken, what the machine and this program hold.

Where CPU and GPU share one memory, what is in use on the whole machine is the number that counts: what CUDA takes there
is in no process's pages. ``/proc/meminfo`` is read here and nowhere else.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
CONTAINER = "the container's memory limit"


class HostMemory:
    """The memory of the host and of one tree of processes.

    Args:
        proc: where procfs is mounted.
        pid: the process whose tree is counted (default: this one).
        cgroup: where the control groups are mounted.
    """

    def __init__(self, proc: Path = PROC, pid: int | None = None, cgroup: Path = CGROUP) -> None:
        self._proc, self._cgroup = proc, cgroup
        self._pid = os.getpid() if pid is None else pid
        self._page = os.sysconf("SC_PAGE_SIZE")

    def available(self) -> tuple[int, str]:
        """(bytes this process may take, where the number comes from): MemAvailable, or a container's limit if lower."""
        available, limit = self.fields().get("MemAvailable", 0), self.limit()
        return (available, "MemAvailable") if limit is None else (limit, CONTAINER)

    def limit(self) -> int | None:
        """Bytes that a container, service or batch job may take; None where that is no less than MemAvailable.

        Every control group above the process counts, of version 2 or 1 (``memory.max`` is ``max`` where there is none).
        """
        try:
            lines = (self._proc / str(self._pid) / "cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        parts = [line.split(":", 2) for line in lines]
        of_process = {name: group for _, names, group in parts for name in names.split(",")}
        found = [self.fields().get("MemAvailable", 0)]
        for controllers, mount, name in (
            ("", self._cgroup, "memory.max"),
            ("memory", self._cgroup / "memory", "memory.limit_in_bytes"),
        ):
            group = mount / of_process.get(controllers, "").lstrip("/")
            for folder in (group, *group.parents):
                with suppress(OSError, ValueError):  # a container sees its own group as the mount
                    found.append(int((folder / name).read_text(encoding="ascii")))
                if folder == mount:
                    break
        return min(found) if min(found) < found[0] else None

    def machine(self) -> float | None:
        """MiB in use on the whole machine (MemTotal - MemAvailable)."""
        found = self.fields()
        known = "MemTotal" in found and "MemAvailable" in found
        return (found["MemTotal"] - found["MemAvailable"]) / 2**20 if known else None

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

    def fields(self) -> dict[str, int]:
        """The fields of ``meminfo`` that the kernel says: bytes, and pages where it counts huge pages."""
        text = (self._proc / "meminfo").read_text(encoding="ascii")
        found = re.findall(r"^(\w+):\s+(\d+)( kB)?", text, re.MULTILINE)
        return {name: int(number) * (1024 if kib else 1) for name, number, kib in found}

    def _process(self, pid: int) -> tuple[int, list[int]]:
        """(resident pages, what it has started); nothing of a process that has just ended."""
        folder = self._proc / str(pid)
        try:
            resident = int((folder / "statm").read_text(encoding="ascii").split()[1])
            lists = [(task / "children").read_text(encoding="ascii") for task in (folder / "task").iterdir()]
        except (FileNotFoundError, ProcessLookupError):
            return 0, []
        return resident, [int(child) for text in lists for child in text.split()]
