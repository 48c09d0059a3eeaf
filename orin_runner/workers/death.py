"""What a worker died of: how its process ended, and the line in which it said why.

llama.cpp's asserts, C++ exceptions, CUDA's errors and faults of the processor leave their line on the process's stderr.
A worker that the kernel kills for its memory says nothing.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from orin_runner.errors import RunError

MEMORY = re.compile(
    r"out of memory|insufficient memory|no memory|allocat|bad_alloc|ALLOC_FAILED|MemoryError|NvMap", re.IGNORECASE
)
"""Words of those who ask for memory in vain: CUDA and cuBLAS, ggml's allocators, C++, Python, the Jetson's driver."""
CAUSE = re.compile(r"GGML_ASSERT|what\(\):|error: ", re.IGNORECASE)
"""A line that says more than those behind it: ``CUDA error: out of memory`` is followed by where that was."""
FAULT = "Fatal Python error: "
"""What Python's ``faulthandler`` begins with; it comes last, and behind it where each thread was."""
LINES = 6
"""Lines at the end of what a worker wrote that may be about its end."""
LONGEST = 300
"""Characters of the line that is shown."""


@dataclass(frozen=True, slots=True)
class LastWords:
    """What a worker sends before it ends because of an exception; ``text`` says which, in one line."""

    text: str

    @classmethod
    def on(cls, error: BaseException) -> LastWords:
        """What is to be said of ``error``: its words, and the place where it was raised where they are no user's."""
        text = " ".join(str(error).split())[:LONGEST]
        if isinstance(error, RunError):
            return cls(text)
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = "" if trace is None else f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"
        return cls(f"{type(error).__name__}{': ' if text else ''}{text}{place}")


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended.

    Attributes:
        how: the signal's name, or the exit status.
        words: the line that says why; None where it said nothing.
        final: no other can be started where it ran.
    """

    how: str
    words: str | None
    final: bool = False

    @classmethod
    def of(cls, code: int, said: str | None, output: str) -> Death:
        """The death of a process.

        Args:
            code: its exit status as ``subprocess`` has it, negative for a signal.
            said: what it told its parent of its end, if it did.
            output: the end of what it wrote on stderr.
        """
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        # What was killed from without could not say so: its last line is about something else.
        return cls(how, None if code in {-signal.SIGKILL, -signal.SIGTERM} else said or last_words(output))

    @property
    def may_be_memory(self) -> bool:
        """Whether a worker with less memory may live: this one died of a lack of it, or did not say why."""
        return self.words is None or bool(MEMORY.search(self.words))

    @property
    def signature(self) -> str:
        """Equal for two deaths of the same cause at the same place: numbers and addresses do not count."""
        return re.sub(r"0x[0-9a-f]+|\d+", "#", f"{self.how}: {self.words}")

    def __str__(self) -> str:
        if self.words is None:
            return self.how
        return f"{self.how}: {self.words}" if self.how.startswith("SIG") else self.words


def last_words(output: str) -> str | None:
    """The line of ``output`` that says why the process ended, paths shortened to names; None where none does."""
    said, _, fault = output.partition(FAULT)
    lines = [line.strip() for line in said.splitlines() if line.strip()][-LINES:]
    if lines:
        line = next((line for line in reversed(lines) if CAUSE.search(line)), lines[-1])
        return re.sub(r"\S*/(?=[^/\s]+:\d+)", "", line)[:LONGEST]
    what = fault.partition("\n")[0].strip()
    if not what or what == "Aborted":  # whoever aborts says why, or nobody knows
        return None
    frame = re.search(r'Current thread.*\n\s*File "(?:.*/)?(.*)", line (\d+) in (\S+)', fault)
    return f"{what} in {frame[3]} ({frame[1]}:{frame[2]})" if frame else what
