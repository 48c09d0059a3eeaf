"""Memory and power of a discrete NVIDIA GPU, from one long-lived ``nvidia-smi``.

It prints the used memory (MiB, all processes) and the board's power (W) once a second.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable

STALE = 5.0
"""Seconds after which a value that nvidia-smi printed is not this moment's any more."""


class NvidiaSmi:
    """A running ``nvidia-smi`` that watches one GPU.

    Args:
        program: its path.
        clock: seconds; to tell when its last line is out of date.

    Attributes:
        source: what power comes from, as shown.
        pid: its process.
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


def _number(text: str) -> float | None:
    """None for "[N/A]" and the like."""
    try:
        return float(text)
    except ValueError:
        return None
