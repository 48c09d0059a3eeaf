"""llama.cpp's log: the only place that has its sizes and its reasons."""

from __future__ import annotations

import ctypes
import os
import re
from collections import deque
from typing import Any

import llama_cpp


class _Log:
    """llama.cpp's log, kept instead of printed. The callback is one per process, as llama.cpp's is.

    Attributes:
        lines: the last ones.
        errors: a file descriptor that errors are written to as well, None for none.
    """

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=4000)
        self.errors: int | None = None
        self._in_error = False
        self._callback = llama_cpp.llama_log_callback(self._receive)
        self.listen()

    def listen(self) -> None:
        """Receive what llama.cpp says from now on."""
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _receive(self, level: int, text: bytes, _user_data: Any) -> None:
        # GGML_LOG_LEVEL_DEBUG 1, INFO 2, WARN 3, ERROR 4, CONT 5 (goes on with the line before).
        if level == 1:
            return
        self._in_error = level == 4 or (level == 5 and self._in_error)
        if self._in_error and self.errors is not None:
            os.write(self.errors, text)
        line = text.decode("utf-8", "replace")
        if level == 5 and self.lines:
            self.lines[-1] += line
        else:
            self.lines.append(line)

    def tail(self, n: int = 6) -> str:
        """What the last ``n`` lines say: those that speak of a failure, or all where none does."""
        last = [line.strip() for line in list(self.lines)[-n:] if line.strip(" .\n")]
        return " | ".join([line for line in last if re.search("error|fail|unable", line, re.IGNORECASE)] or last)

    def find(self, pattern: str) -> list[re.Match[str]]:
        return [match for line in self.lines if (match := re.search(pattern, line))]


LOG = _Log()


def write_errors_to(descriptor: int) -> None:
    """From now on write llama.cpp's errors to a file as well: whoever looks at it knows them after an abort."""
    LOG.errors = descriptor
