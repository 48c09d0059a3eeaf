"""What a run's samples draw over time: tokens per second, memory, power, as polylines for ``report.html``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from eval.runs.samples import Sample, parts
from orin_runner.machine.sensors import COUNTERS

SMALLEST = 1e-100
"""Of a value that is drawn as more than nothing: the powers of ten below have no doubles in the end."""
MAX_POINTS = 160
"""Of a line; a chart is hardly wider in pixels on a phone."""
STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
"""What the top of an axis may be, times a power of ten."""

Line = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One chart: its key in ``lines``, what its heading says, the unit of its axis."""

    key: str
    title: str
    unit: str


KINDS = (
    Kind("tokens_per_s", "Tokens computed for the answers", "tokens/s"),
    *(Kind(counter.name, counter.title, counter.unit) for counter in COUNTERS),
)


def lines(samples: Sequence[Sample], *, unified: bool) -> dict[str, Any] | None:
    """The lines of one run, each broken where a value is missing; None of fewer than two samples.

    Args:
        samples: all of a run.
        unified: CPU and GPU share the machine's memory, so that what is in use on the machine is what counts.

    Returns:
        ``seconds`` in all, one part after the other; ``resumed``, the seconds at which later parts begin; ``lines`` of
        (seconds, value) by ``Kind.key``, empty ones left out.
    """
    total = sum(part[-1].seconds for part in parts(samples))
    if not total:
        return None
    found: dict[str, list[Line]] = {kind.key: [] for kind in KINDS}
    resumed, offset = [], 0.0
    for part in parts(samples):
        if offset:
            resumed.append(round(offset, 3))
        found["tokens_per_s"] += throughput(part, offset, max(1.0, total / MAX_POINTS))
        for counter in COUNTERS:
            if unified or not counter.if_unified:
                found[counter.name] += gauge(part, offset, counter.name)
        offset += part[-1].seconds
    known = {key: drawn for key, drawn in found.items() if drawn}
    return {"seconds": round(total, 3), "resumed": resumed, "lines": known}


def throughput(part: Sequence[Sample], offset: float, width: float) -> list[Line]:
    """Tokens per second of one part, as steps of about ``width`` seconds.

    The tokens of a decode call become known together, seconds apart on a slow device. They are spread evenly over the
    time since the tokens before them, so that the steps' areas add up to all tokens and no step says what the sampling
    did.
    """
    end = part[-1].seconds
    if not part[-1].computed and all(not sample.computed for sample in part):
        return []
    times, tokens, base = [0.0], [0], 0
    for _, members in groupby(part, key=lambda sample: sample.task):
        task = list(members)
        for sample in task:
            times.append(max(times[-1], sample.computed_at))
            tokens.append(base + sample.computed)
        base += task[-1].computed
    edges = np.linspace(0.0, end, max(1, round(end / width)) + 1)
    # Of equal times the last counts: there it has become what it is.
    last = dict(zip(times, tokens, strict=True))
    counts = np.interp(edges, list(last), list(last.values()))
    rates = np.diff(counts) / np.diff(edges)
    line: Line = []
    for left, right, rate in zip(edges[:-1], edges[1:], rates, strict=True):
        line += [(round(offset + float(at), 3), round(float(rate), 2)) for at in (left, right)]
    return [line]


def gauge(part: Sequence[Sample], offset: float, counter: str) -> list[Line]:
    """A counter that was read at each sample; of many samples the largest of every few."""
    found: list[Line] = []
    values = [(sample.seconds, getattr(sample.reading, counter)) for sample in part]
    for known, members in groupby(values, key=lambda point: point[1] is not None):
        run = list(members)
        if not known or len(run) < 2:
            continue
        stride = math.ceil(len(run) / MAX_POINTS)
        chunks = [run[at : at + stride] for at in range(0, len(run), stride)]
        line = [(chunk[0][0], max(y for _, y in chunk)) for chunk in chunks]
        if stride > 1:
            line.append((run[-1][0], line[-1][1]))
        found.append([(round(offset + x, 3), y) for x, y in line])
    return found


def charts(runs: Sequence[dict[str, Any] | None]) -> list[dict[str, Any]]:
    """The charts that ``lines`` of several runs make: those of which at least one run has a line.

    Returns:
        For each its ``title`` and ``unit``, the ``top`` of its axis, which begins at 0, its ``seconds``, where
        runs were ``resumed``, and ``lines``: (number of the run, points as x and y in 0 to 1000 from the upper left).
    """
    known = [(number, run) for number, run in enumerate(runs) if run is not None]
    seconds = max((run["seconds"] for _, run in known), default=0.0)
    found = []
    for kind in KINDS:
        drawn = [(number, line) for number, run in known for line in run["lines"].get(kind.key, ())]
        if not drawn:
            continue
        top = axis_top(max(y for _, line in drawn for _, y in line))
        found.append(
            {
                "key": kind.key,
                "title": kind.title,
                "unit": kind.unit,
                "top": top,
                "seconds": seconds,
                "resumed": [(number, 1000 * at / seconds) for number, run in known for at in run["resumed"]],
                "lines": [
                    (number, " ".join(f"{1000 * x / seconds:.1f},{1000 - 1000 * y / top:.1f}" for x, y in line))
                    for number, line in drawn
                ],
            }
        )
    return found


def axis_top(value: float) -> float:
    """The lowest round number that is not below ``value``."""
    if value < SMALLEST:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in STEPS if step * power >= value * (1 - 1e-9))
