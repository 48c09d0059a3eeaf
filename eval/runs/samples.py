"""``samples.jsonl``: how far a run was and what it took, about once a second, and what that comes to.

Lines are appended and flushed while the run goes; a run that is resumed goes on with another *part*, whose seconds
begin at 0 again. What was not known is None and stays None.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from orin_runner.files import drop_torn_line

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
        host_mib, machine_mib, gpu_mib, watts: see ``orin_runner.machine.sensors.Reading``.
    """

    part: int
    seconds: float
    task: str | None
    computed: int
    computed_at: float
    done: int
    host_mib: float | None
    machine_mib: float | None
    gpu_mib: float | None
    watts: float | None


def read_samples(path: Path) -> tuple[Sample, ...]:
    """All samples of ``path``; none where there is no such file (runs before there were samples).

    A line that is none, as a full disk may leave one, is left out: no result needs it.
    """
    if not path.exists():
        return ()
    names = {field.name for field in fields(Sample)}
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # still being written, or torn
        try:
            row = json.loads(line)
            found.append(Sample(**{name: row[name] for name in names}))
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    return tuple(found)


def next_part(path: Path) -> int:
    """The number of the part that is about to be appended; a last line that a kill has torn is dropped."""
    if path.exists():
        drop_torn_line(path)
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
    joules = covered = 0.0
    for part in parts(samples):
        for one, other in pairwise(part):
            if one.watts is not None and other.watts is not None:
                seconds = other.seconds - one.seconds
                joules += seconds * (one.watts + other.watts) / 2
                covered += seconds
    return {
        "samples": len(samples),
        "seconds": round(sum(part[-1].seconds for part in parts(samples)), 3),
        "unified": unified,
        "peak_host_mib": _peak(sample.host_mib for sample in samples),
        "peak_machine_mib": _peak(sample.machine_mib for sample in samples),
        "peak_gpu_mib": _peak(sample.gpu_mib for sample in samples),
        "peak_watts": _peak(sample.watts for sample in samples),
        "mean_watts": round(joules / covered, 1) if covered else None,
        "joules": round(joules, 1) if covered else None,
        "power_seconds": round(covered, 3),
        "power_source": power_source,
    }


def _peak(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
