"""``samples.jsonl``: how far a run was and what it took, about once a second, and what that comes to.

Lines are appended and flushed while the run goes; a run that is resumed goes on with another *part*, whose seconds
begin at 0 again. What was not known is None and stays None.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from orin_runner.files import json_text, read_bytes, whole_lines
from orin_runner.machine.sensors import COUNTERS, Reading
from orin_runner.schema import Schema, bounded

SAMPLES = "samples.jsonl"


@dataclass(frozen=True, slots=True)
class Sample:
    """One line.

    Attributes:
        part: 0, and one more each time the run was resumed.
        seconds: since this part began.
        task: what is being asked, None before the first task.
        computed: tokens computed for the task's answers so far in this part.
        computed_at: the ``seconds`` at which ``computed`` became what it is.
        done: items answered so far.
        reading: the machine's counters; in the line each is a key like the others.
    """

    part: int
    seconds: float
    task: str | None
    computed: int
    computed_at: float
    done: int
    reading: Reading = field(default_factory=Reading)

    @classmethod
    def parse(cls, line: bytes) -> Sample:
        """The sample of a line.

        Raises:
            ValueError: it is none.
        """
        # A run may be older than a counter.
        found = replace(FORM.parse(line), reading=READING.parse(line))
        if not bounded((found.part, found.seconds, found.computed, found.computed_at, found.done)):
            raise ValueError("a number is too large")
        if not bounded(asdict(found.reading).values()):
            raise ValueError("a reading is too large")
        return found

    def line(self) -> bytes:
        """Its line of ``samples.jsonl``."""
        row = asdict(self)
        row.update(row.pop("reading"))
        return json_text(row).encode() + b"\n"


def read_samples(path: Path) -> tuple[Sample, ...]:
    """All samples of ``path``; none where there is no such file (runs before there were samples).

    A line that is none, as a full disk may leave one, is left out, and one that goes back in time: no result needs it.

    Raises:
        UserError: it is no file at all.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return ()
    found: list[Sample] = []
    for line in whole_lines(content).splitlines():  # the last one may still be being written, or torn
        try:
            sample = Sample.parse(line)
        except ValueError:
            continue
        if not found or (found[-1].part, found[-1].seconds) <= (sample.part, sample.seconds):
            found.append(sample)
    return tuple(found)


FORM, READING = Schema(Sample), Schema(Reading)


def next_part(path: Path) -> int:
    """The number of the part that is about to be appended; a last line that a kill has torn is dropped."""
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return 0
    if len(whole_lines(content)) < len(content):
        os.truncate(path, len(whole_lines(content)))
    return max((sample.part for sample in read_samples(path)), default=-1) + 1


def parts(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The samples of each part."""
    found: dict[int, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.part, []).append(sample)
    return list(found.values())


def summary(
    samples: Sequence[Sample], *, unified: bool = False, power_source: str | None = None
) -> dict[str, Any] | None:
    """What ``report.json`` says of a run's samples; None without any.

    Energy is the integral of power between neighbouring samples of a part (trapezoids), so it leaves out what was
    before the first and after the last reading: ``power_seconds`` is the time it covers, and the mean is over that.

    Args:
        samples: all of a run.
        unified: CPU and GPU share the machine's memory.
        power_source: what ``watts`` was read from.
    """
    if not samples:
        return None
    names = [counter.name for counter in COUNTERS]
    joules = covered = 0.0
    for part in parts(samples):
        for one, other in pairwise(part):
            if one.reading.watts is not None and other.reading.watts is not None:
                seconds = other.seconds - one.seconds
                joules += seconds * (one.reading.watts + other.reading.watts) / 2
                covered += seconds
    return {
        "samples": len(samples),
        "seconds": round(sum(part[-1].seconds for part in parts(samples)), 3),
        "unified": unified,
        **{f"peak_{name}": _peak(getattr(sample.reading, name) for sample in samples) for name in names},
        "mean_watts": round(joules / covered, 1) if covered else None,
        "joules": round(joules, 1) if covered else None,
        "power_seconds": round(covered, 3),
        "power_source": power_source,
    }


def _peak(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
