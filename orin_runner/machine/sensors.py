"""What the machine's own counters say at this moment: memory and power. A counter that is not there gives None.

* Host memory: ``/proc``. The resident pages of this program's processes, and what is in use on the whole machine, which
  is the number that counts where CPU and GPU share one memory: what CUDA takes there is in no process's pages.
* A discrete NVIDIA GPU: one long-lived ``nvidia-smi``, which prints used memory (MiB, all processes) and the board's
  power (W) once a second.
* A Jetson: the INA3221 monitors on its power rails. Files and units follow the kernel's ``Documentation/hwmon/
  ina3221.rst`` (mV, mA), rail names its device trees of the Orin modules. This has not been tried on a device.

Knows nothing of runs, tasks or files of a run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
INA3221 = Path("/sys/bus/i2c/drivers/ina3221")
MODULE_RAILS = (("VDD_IN",), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"))
"""Rails whose sum is a module's power: Orin NX and Nano measure their input; an AGX Orin its three inputs, of which the
5 V one is taken to feed the memory, too (``VDDQ_VDD2_1V8AO``, not added). Other boards' sums are not known here."""
STALE = 5.0
"""Seconds after which a value that nvidia-smi printed is not this moment's any more."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters at one moment, None where they are not known.

    Attributes:
        host_mib: resident memory of this program's processes; a page that several of them share counts for each.
        machine_mib: in use on the whole machine (MemTotal - MemAvailable).
        gpu_mib: in use on the GPU, by all processes.
        watts: power of the GPU's board, or of the Jetson module.
    """

    host_mib: float | None = None
    machine_mib: float | None = None
    gpu_mib: float | None = None
    watts: float | None = None


class HostMemory:
    """Memory as ``/proc`` has it.

    Args:
        proc: where procfs is mounted.
        pid: the process whose tree is counted (default: this one).
    """

    def __init__(self, proc: Path = PROC, pid: int | None = None) -> None:
        self._proc = proc
        self._pid = os.getpid() if pid is None else pid
        self._page = os.sysconf("SC_PAGE_SIZE")

    def processes(self, without: int | None = None) -> float | None:
        """Resident MiB of the process and all it started, but for process ``without``.

        None where the kernel does not list children (``CONFIG_PROC_CHILDREN``).
        """
        if not (self._proc / str(self._pid) / "task" / str(self._pid) / "children").exists():
            return None
        pages, pids = 0, [self._pid]
        for pid in pids:  # grows while it is walked
            resident, children = self._process(pid)
            pages += resident
            pids += [child for child in children if child != without]
        return pages * self._page / 2**20

    def _process(self, pid: int) -> tuple[int, list[int]]:
        """(resident pages, what it has started); nothing of a process that has just ended."""
        folder = self._proc / str(pid)
        try:
            resident = int((folder / "statm").read_text(encoding="ascii").split()[1])
            lists = [(task / "children").read_text(encoding="ascii") for task in (folder / "task").iterdir()]
        except (FileNotFoundError, ProcessLookupError):
            return 0, []
        return resident, [int(child) for text in lists for child in text.split()]

    def machine(self) -> float | None:
        """MiB in use on the whole machine."""
        text = (self._proc / "meminfo").read_text(encoding="ascii")
        found = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", text, re.MULTILINE))
        return (int(found["MemTotal"]) - int(found["MemAvailable"])) / 1024 if len(found) == 2 else None


class Rails:
    """The power rails of a Jetson module.

    Args:
        rails: by label, the files of voltage (mV) and current (mA).
    """

    def __init__(self, rails: dict[str, tuple[Path, Path]]) -> None:
        self._files = list(rails.values())
        self.source = f"INA3221 {' + '.join(rails)}"

    @classmethod
    def find(cls, root: Path = INA3221) -> Rails | None:
        """The rails that make up a module's power; None where there are none, or others than are known here."""
        found: dict[str, tuple[Path, Path]] = {}
        # Inputs 4 to 7 are shunt voltages and their sum; a disabled channel has no label, or "NC".
        for label in sorted(root.glob("*/hwmon/hwmon*/in[123]_label")):
            number = label.name[2]
            files = (label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input"))
            found[label.read_text(encoding="ascii", errors="replace").strip()] = files
        for names in MODULE_RAILS:
            if all(name in found for name in names):
                return cls({name: found[name] for name in names})
        return None

    def watts(self) -> float | None:
        """Power of the module; None where one of its rails cannot be read."""
        try:
            values = [[int(file.read_text(encoding="ascii")) for file in files] for files in self._files]
        except (OSError, ValueError):
            return None
        return sum(millivolts * milliamperes for millivolts, milliamperes in values) / 1e6


class NvidiaSmi:
    """Memory and power of one GPU from a running ``nvidia-smi``.

    Args:
        program: its path.
        clock: seconds; to tell when its last line is out of date.
    """

    source = "nvidia-smi power.draw"

    def __init__(self, program: str, clock: Callable[[], float] = time.monotonic) -> None:
        # The engine computes on the first GPU that CUDA may see.
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
        query = ["--query-gpu=memory.used,power.draw", "--format=csv,noheader,nounits", "-lms", "1000", "-i", gpu]
        # Out of reach of Ctrl-C, which ends the run in good order: its last samples need this, too.
        self._process = subprocess.Popen(
            [program, *query], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._clock = clock
        self._tail = b""
        self._last: tuple[float | None, float | None] = (None, None)
        self._seen = clock()
        self.pid = self._process.pid

    @classmethod
    def find(cls) -> NvidiaSmi | None:
        """Start the one on ``PATH``; None where there is none."""
        program = shutil.which("nvidia-smi")
        return None if program is None else cls(program)

    def read(self) -> tuple[float | None, float | None]:
        """(MiB in use, W) of its last line; None what it does not know, or has not said for some seconds."""
        lines = (self._tail + self._new()).split(b"\n")
        self._tail = lines.pop()
        if lines:
            memory, _, power = lines[-1].decode("ascii", "replace").partition(",")
            self._last = (_number(memory), _number(power))
            self._seen = self._clock()
        return self._last if self._clock() - self._seen < STALE else (None, None)

    def _new(self) -> bytes:
        parts = []
        while True:
            try:
                part = os.read(self._output, 1 << 16)
            except BlockingIOError:
                break
            if not part:
                break  # it has ended
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Sensors:
    """All that this machine has.

    Args:
        host: host memory.
        rails: a Jetson's rails.
        gpu: a discrete GPU.

    Attributes:
        power_source: what ``watts`` comes from; None where power is not known.
    """

    def __init__(self, host: HostMemory, rails: Rails | None = None, gpu: NvidiaSmi | None = None) -> None:
        self._host, self._rails, self._gpu = host, rails, gpu
        self.power_source = rails.source if rails else gpu.source if gpu else None

    def read(self) -> Reading:
        """Every counter, now."""
        gpu_mib, watts = (None, None) if self._gpu is None else self._gpu.read()
        if self._rails is not None:
            watts = self._rails.watts()
        host = self._host.processes(None if self._gpu is None else self._gpu.pid)
        return Reading(host, self._host.machine(), gpu_mib, watts)

    def close(self) -> None:
        """End what was started to read them."""
        if self._gpu is not None:
            self._gpu.close()


def find_sensors(*, cuda: bool, ina3221: Path = INA3221) -> Sensors:
    """The sensors of this machine.

    Args:
        cuda: the run computes on an NVIDIA GPU; without it the memory and power of one have nothing to do with the run.
        ina3221: the driver's folder in sysfs.
    """
    rails = Rails.find(ina3221)
    # A Jetson's nvidia-smi knows neither memory nor power.
    gpu = NvidiaSmi.find() if cuda and rails is None else None
    return Sensors(HostMemory(), rails, gpu)


def _number(text: str) -> float | None:
    """None for "[N/A]" and the like."""
    try:
        return float(text)
    except ValueError:
        return None
