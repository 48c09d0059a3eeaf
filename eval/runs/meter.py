"""A thread beside a run that writes down twice a second how far the run is and what the sensors say.

It lives in the process that waits for the engine, never in the engine, and reads a handful of small files a second.
``samples`` has the form of a line and reads it back.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from eval.runs.measured import summary
from eval.runs.samples import Sample, next_part, read_samples
from orin_runner.files import append_bytes, naming
from orin_runner.machine.sensors import Sensors

INTERVAL = 0.5
"""Seconds between samples."""


class Meter:
    """Appends samples to a file from ``with`` to the end of it.

    Args:
        path: the file; what is there stays, and this is its next part.
        sensors: what is read; closed at the end.
        unified: CPU and GPU share the machine's memory.
        elsewhere: other machines take part in the run, which ``sensors`` know nothing of.
        interval: seconds between samples.
        clock: seconds; tests put their own in its place.

    Attributes:
        failure: why the file could not be written any more, None while it can. The run goes on without.
    """

    def __init__(
        self,
        path: Path,
        sensors: Sensors,
        *,
        unified: bool = False,
        elsewhere: bool = False,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failure: OSError | None = None
        self._path, self._unified, self._elsewhere = path, unified, elsewhere
        self._sensors, self._interval, self._clock = sensors, interval, clock
        self._part = next_part(path)
        # Unbuffered: on disk with each line, and nothing left to fail when it is closed.
        self._file = path.open("ab", buffering=0)
        self._started = clock()
        # Task, tokens computed, since when, items done: one value, so that the thread never sees half of a change.
        self._progress: tuple[str | None, int, float, int] = (None, 0, 0.0, 0)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="meter", daemon=True)

    def measured(self) -> dict[str, Any] | None:
        """What all parts of the file come to, for ``report.json``."""
        return summary(read_samples(self._path), unified=self._unified, power_source=self._sensors.power_source)

    def begin(self, task: str) -> None:
        """From now on ``task`` is being asked. Samples on both sides, so that no token falls between two tasks."""
        self._sample()
        self._progress = (task, 0, self._seconds(), 0)
        self._sample()

    def update(self, computed: int, done: int) -> None:
        """How far the task is: tokens computed and items answered in this part of the run. Only remembers it."""
        task, before, since, _ = self._progress
        self._progress = (task, computed, since if computed == before else self._seconds(), done)

    def __enter__(self) -> Meter:
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
        self._file.close()
        self._sensors.close()

    def _seconds(self) -> float:
        return self._clock() - self._started

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        with self._lock:
            if self.failure is not None:
                return
            task, computed, since, done = self._progress
            reading = self._sensors.read()
            sample = Sample(
                part=self._part,
                seconds=round(self._seconds(), 3),
                task=task,
                computed=computed,
                computed_at=round(since, 3),
                done=done,
                reading=_rounded(reading),
                elsewhere=self._elsewhere,
            )
            try:
                with naming(self._path):
                    append_bytes(self._file, sample.line())
            except OSError as error:
                self.failure = error


def _rounded(value: Any) -> Any:
    """A reading, and those in it, to one decimal; what a sensor gives that is no number is not known."""
    if isinstance(value, float):
        return round(value, 1) if math.isfinite(value) else None
    if isinstance(value, tuple):
        return tuple(map(_rounded, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{row.name: _rounded(getattr(value, row.name)) for row in fields(value)})
    return value
