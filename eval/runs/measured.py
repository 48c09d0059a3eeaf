"""``measured`` of ``report.json``: what a run's samples come to.

What a counter did over time is taken between neighbouring samples of a part that both know it, along the straight line
(trapezoids). It leaves out what was before the first and after the last of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from eval.runs.samples import Sample, gpu_keys, parts
from orin_runner.machine.sensors import COUNTERS

JOULES_PER_WH = 3600


def summary(
    samples: Sequence[Sample], *, unified: bool = False, power_source: str | None = None
) -> dict[str, Any] | None:
    """What ``report.json`` says of a run's samples; None without any.

    Args:
        samples: all of a run.
        unified: CPU and GPU share the machine's memory.
        power_source: what ``watts`` was read from.
    """
    if not samples:
        return None
    power = over_time([[(sample.seconds, sample.reading.watts) for sample in part] for part in parts(samples)])
    return {
        "samples": len(samples),
        "seconds": round(sum(part[-1].seconds for part in parts(samples)), 3),
        "unified": unified,
        **{
            f"peak_{counter.name}": largest(getattr(sample.reading, counter.name) for sample in samples)
            for counter in COUNTERS
        },
        "mean_watts": power.mean,
        "joules": round(power.integral, 1) if power.seconds else None,
        "power_seconds": round(power.seconds, 3),
        "power_source": power_source,
        "energy": energy(samples),
        "gpus": gpus(samples),
    }


@dataclass(frozen=True, slots=True)
class OverTime:
    """What a counter did: its integral over the ``seconds`` in which it was known."""

    integral: float
    seconds: float

    @property
    def mean(self) -> float | None:
        """To one decimal; None where it was not known."""
        return round(self.integral / self.seconds, 1) if self.seconds else None


def over_time(series: Iterable[Sequence[tuple[float, float | None]]]) -> OverTime:
    """What a counter did, by its values at seconds of each part."""
    integral = covered = 0.0
    for points in series:
        for (start, one), (end, other) in pairwise(points):
            if one is not None and other is not None:
                integral += (end - start) * (one + other) / 2
                covered += end - start
    return OverTime(integral, covered)


def largest(values: Iterable[float | None]) -> float | None:
    """The largest value; None where none is known."""
    return max((value for value in values if value is not None), default=None)


def energy(samples: Sequence[Sample]) -> dict[str, dict[str, float | None]]:
    """By task: the energy of the time in which it was asked, and what that is for what was answered in this time.

    Left out is the time in which power was not known, or in which other machines took part, of which nothing is known.
    """
    found: dict[str, list[float]] = {}
    for part in parts(samples):
        for one, other in pairwise(part):
            task, watts = one.task, (one.reading.watts, other.reading.watts)
            if task is None or task != other.task or one.elsewhere or None in watts:
                continue
            spent = over_time([[(one.seconds, watts[0]), (other.seconds, watts[1])]]).integral
            more = (spent, other.done - one.done, other.computed - one.computed)
            found[task] = [sum(pair) for pair in zip(found.get(task, (0.0, 0.0, 0.0)), more, strict=True)]
    return {
        task: {
            "joules": round(joules, 1),
            "joules_per_item": _ratio(joules, items),
            "joules_per_1000_tokens": _ratio(1000 * joules, tokens),
            "items_per_wh": _ratio(JOULES_PER_WH * items, joules),
        }
        for task, (joules, items, tokens) in found.items()
    }


def gpus(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Each GPU that was read, in the order in which they were met."""
    return [_gpu(samples, *key) for key in gpu_keys(samples)]


def _gpu(samples: Sequence[Sample], gpu_id: str, name: str) -> dict[str, Any]:
    series = [[(sample.seconds, sample.reading.gpu(gpu_id, name)) for sample in part] for part in parts(samples)]
    known = [reading for part in series for _, reading in part if reading is not None]

    def mean(counter: str) -> float | None:
        return over_time([[(at, getattr(reading, counter, None)) for at, reading in part] for part in series]).mean

    def seconds(reason: str) -> float:
        def slowed(throttled: tuple[str, ...] | None) -> float | None:
            return None if throttled is None else float(reason in throttled)

        found = [[(at, slowed(reading.throttled if reading else None)) for at, reading in part] for part in series]
        return round(over_time(found).integral, 1)

    told = [reading.throttled for reading in known if reading.throttled is not None]
    return {
        "id": gpu_id,
        "name": name,
        "peak_mib": largest(reading.mib for reading in known),
        "peak_own_mib": largest(reading.own_mib for reading in known),
        "mean_watts": mean("watts"),
        "mean_load": mean("load"),
        "mean_sm_mhz": mean("sm_mhz"),
        "max_celsius": largest(reading.celsius for reading in known),
        "throttled_s": {reason: seconds(reason) for reason in sorted(set().union(*told))} if told else None,
    }


def _ratio(amount: float, of: float) -> float | None:
    """To four digits; None where there is nothing to divide by, or no amount."""
    return float(f"{amount / of:.4g}") if amount > 0 and of > 0 else None
