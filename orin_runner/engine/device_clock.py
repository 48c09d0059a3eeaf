"""When batches were on the device: what part of a run it was idle, and what part llama.cpp's own work was not hidden.

Two contexts that take turns overlap, so their executors share one ``DeviceClock``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from orin_runner.runner import DecodeStats


class DeviceClock:
    """Adds up one device's time.

    Attributes:
        stats: receives ``idle_s`` and ``alone_s``, and from executors what else they count.
    """

    def __init__(self, stats: DecodeStats) -> None:
        self.stats = stats
        self._busy_until: float | None = None  # the end of the last time in which a batch was on the device

    def busy(self, start: float, submitted: float, end: float) -> None:
        """A batch was being submitted from ``start`` to ``submitted`` and computed at ``end``, all in seconds.

        Batches of two contexts overlap; they are told in the order in which they were submitted.
        """
        before = start if self._busy_until is None else self._busy_until
        self.stats.idle_s += max(0.0, start - before)
        self.stats.alone_s += max(0.0, submitted - max(start, before))
        self._busy_until = max(before, end)

    def pause(self) -> None:
        """What follows until the next batch is not part of the run, and not idle time."""
        self._busy_until = None


class Completion:
    """When the device is done with a batch.

    Args:
        synchronize: waits for the device.
        watched: a thread waits for each batch, so that the moment is known even if nobody asks for it then.
    """

    def __init__(self, synchronize: Callable[[], None], *, watched: bool) -> None:
        self._synchronize = synchronize
        self._watch = ThreadPoolExecutor(1, "watch") if watched else None
        self._done: Future[float] | None = None

    def begin(self) -> None:
        """A batch has been submitted."""
        if self._watch is not None:
            self._done = self._watch.submit(self._wait)

    def wait(self) -> float:
        """Wait for the batch; the ``time.perf_counter`` at which the device was done."""
        return self._wait() if self._done is None else self._done.result()

    def rest(self) -> None:
        """Wait until no thread waits for the device: the context may be freed then."""
        if self._done is not None:
            wait([self._done])

    def _wait(self) -> float:
        self._synchronize()
        return time.perf_counter()
