"""When batches were on the device: what part of a run it was idle, and what part llama.cpp's own work was not hidden.

Two contexts that take turns overlap, so their executors share one ``DeviceClock``.
"""

from __future__ import annotations

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
