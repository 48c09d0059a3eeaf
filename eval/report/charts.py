"""What a run's samples draw over time: tokens per second, memory, power, as polylines for ``report.html``.

What is known of each GPU is a line for each of them; a total is drawn where that is all there is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from eval.runs.samples import Sample, gpu_keys, parts
from orin_runner.machine.sensors import COUNTERS, GPU_COUNTERS

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
    *(
        Kind(counter.key, counter.title, counter.unit)
        for counter in GPU_COUNTERS
        if counter.key not in {total.name for total in COUNTERS}
    ),
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A line of a chart.

    Attributes:
        run: its number.
        gpu: which GPU's it is; empty where it is the run's.
        colour: a number; that of the run where there are several, else of the GPU.
        points: x and y in 0 to 1000 from the upper left.
    """

    run: int
    gpu: str
    colour: int
    points: str


def lines(samples: Sequence[Sample], *, unified: bool) -> dict[str, Any] | None:
    """The lines of one run, each broken where a value is missing; None of fewer than two samples.

    Args:
        samples: all of a run.
        unified: CPU and GPU share the machine's memory, so that what is in use on the machine is what counts.

    Returns:
        ``seconds`` in all, one part after the other; ``resumed``, the seconds at which later parts begin; ``lines`` of
        (seconds, value) by ``Kind.key``, empty ones left out; ``gpus``, for each of its GPUs its ``name`` and its
        ``lines`` likewise.
    """
    total = sum(part[-1].seconds for part in parts(samples))
    if not total:
        return None
    found: dict[str, list[Line]] = {kind.key: [] for kind in KINDS}
    totals = {counter.name: counter.name for counter in COUNTERS if unified or not counter.if_unified}
    of_each = {counter.key: counter.name for counter in GPU_COUNTERS}
    names = gpu_keys(samples)
    by_gpu: list[dict[str, list[Line]]] = [{key: [] for key in of_each} for _ in names]
    resumed, offset = [], 0.0
    for part in parts(samples):
        if offset:
            resumed.append(round(offset, 3))
        found["tokens_per_s"] += throughput(part, offset, max(1.0, total / MAX_POINTS))
        _add(found, totals, [(sample.seconds, sample.reading) for sample in part], offset)
        for name, drawn in zip(names, by_gpu, strict=True):
            _add(drawn, of_each, [(sample.seconds, sample.reading.gpu(*name)) for sample in part], offset)
        offset += part[-1].seconds
    return {
        "seconds": round(total, 3),
        "resumed": resumed,
        "lines": _known(found),
        "gpus": [{"name": f"GPU {name[0]}", "lines": _known(drawn)} for name, drawn in zip(names, by_gpu, strict=True)],
    }


def _add(
    lines: dict[str, list[Line]], counters: Mapping[str, str], readings: Sequence[tuple[float, Any]], offset: float
) -> None:
    """Add what ``readings`` at seconds of a part draw; ``counters``: by the key of a chart the name of its value."""
    for key, name in counters.items():
        lines[key] += gauge([(at, getattr(reading, name, None)) for at, reading in readings], offset)


def _known(lines: dict[str, list[Line]]) -> dict[str, list[Line]]:
    return {key: drawn for key, drawn in lines.items() if drawn}


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


def gauge(values: Sequence[tuple[float, float | None]], offset: float) -> list[Line]:
    """A counter that was read at each sample, as (seconds, value); of many samples the largest of every few."""
    found: list[Line] = []
    for _, members in groupby(values, key=lambda point: point[1] is not None):
        run = [(at, value) for at, value in members if value is not None]
        if len(run) < 2:
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
        runs were ``resumed``, and ``lines`` as ``Drawn``.
    """
    known = [(number, run) for number, run in enumerate(runs) if run is not None]
    seconds = max((run["seconds"] for _, run in known), default=0.0)
    found = []
    for kind in KINDS:
        drawn = [(number, *line) for number, run in known for line in _of_run(run, kind.key)]
        if not drawn:
            continue
        top = axis_top(max(y for *_, line in drawn for _, y in line))
        found.append(
            {
                "key": kind.key,
                "title": kind.title,
                "unit": kind.unit,
                "top": top,
                "seconds": seconds,
                "resumed": [(number, 1000 * at / seconds) for number, run in known for at in run["resumed"]],
                "lines": [
                    Drawn(number, gpu, number if len(runs) > 1 else place, _points(line, seconds, top))
                    for number, place, gpu, line in drawn
                ],
            }
        )
    return found


def _of_run(run: dict[str, Any], key: str) -> list[tuple[int, str, Line]]:
    """The lines of one chart: place and name of the GPU, 0 and empty for the run's own, and the line."""
    by_gpu = [(place, gpu["name"], line) for place, gpu in enumerate(run["gpus"]) for line in gpu["lines"].get(key, ())]
    return by_gpu or [(0, "", line) for line in run["lines"].get(key, ())]


def _points(line: Line, seconds: float, top: float) -> str:
    return " ".join(f"{1000 * x / seconds:.1f},{1000 - 1000 * y / top:.1f}" for x, y in line)


def axis_top(value: float) -> float:
    """The lowest round number that is not below ``value``."""
    if value < SMALLEST:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in STEPS if step * power >= value * (1 - 1e-9))
