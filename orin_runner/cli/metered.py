"""A run's tasks, one after the other, with a meter beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from eval.evaluate import Prepared, evaluate
from eval.progress import Status
from eval.runs.meter import Meter
from eval.runs.samples import SAMPLES
from eval.runs.writer import RunWriter
from orin_runner.console import Bar, Notes
from orin_runner.errors import os_error_line
from orin_runner.machine.sensors import find_sensors
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.workers.places import Place, gpus_here
from orin_runner.workers.replicas import Replicas
from orin_runner.workers.supervisor import Supervisor


def metered_run(
    notes: Notes,
    prepared: Sequence[Prepared],
    tokenizer: Tokenizer,
    supervisor: Supervisor | Replicas,
    writer: RunWriter,
    start_s: float,
    began: float,
    poll: Callable[[], None],
    where: Sequence[Place],
) -> tuple[dict[str, Any], dict[str, Any] | None, int]:
    """Run the tasks, up to one that is interrupted, with a meter beside them.

    Args:
        start_s: seconds from the start of the process to the start of the command.
        began: the start of the process, on the scale of ``time.perf_counter``.
        poll: called whenever a task has come further; what it raises ends the run.
        where: the replicas run.

    Returns:
        The tasks' sections of ``report.json``, what was measured, and ``RunStats.cacheable`` of all tasks.
    """
    device = supervisor.plan.device
    sections: dict[str, Any] = {}
    ran, cacheable = 0.0, 0  # of the tasks before, the former seconds
    sensors = find_sensors(cuda=device.cuda, gpus=gpus_here(where))
    beyond = any(place.gpus is None for place in where)
    if beyond:
        notes.note("memory, power and GPUs are measured on this machine only")
    unified = device.cuda and device.unified
    with Meter(writer.directory / SAMPLES, sensors, unified=unified, elsewhere=beyond) as meter:
        for item in prepared:
            name = item.task.name
            meter.begin(name)
            with notes.progress(name, 1.0) as bar:
                clocks = {"start": start_s, "load": supervisor.loaded.seconds}
                elsewhere = sum(sum(other.clocks.values()) for other in prepared if other is not item) + ran
                process_clock = partial(_process_clock, began, elsewhere)
                before = time.perf_counter()
                show = _TaskProgress(meter, bar, poll)
                sections[name] = evaluate(item, tokenizer, supervisor, writer, clocks, show, process_clock)
                if isinstance(supervisor, Replicas):
                    sections[name]["replicas"] = supervisor.shares()
                ran += time.perf_counter() - before
                cacheable += supervisor.stats.cacheable
            if "unanswered" in sections[name]:
                break
    if meter.failure is not None:
        notes.warn(f"{SAMPLES} ends early: {os_error_line(meter.failure)}")
    if sensors.failure is not None:
        notes.warn(f"{SAMPLES} has gaps: {sensors.failure}")
    return sections, meter.measured(), cacheable


def _process_clock(began: float, elsewhere: float) -> float:
    """Seconds since the process began, less those spent on other tasks."""
    return time.perf_counter() - began - elsewhere


class _TaskProgress:
    """Tells meter and progress line how far a task is, and calls ``poll``."""

    def __init__(self, meter: Meter, bar: Bar, poll: Callable[[], None]) -> None:
        self._meter, self._bar, self._poll = meter, bar, poll
        self._began = time.perf_counter()

    def __call__(self, status: Status) -> None:
        self._meter.update(status.computed, status.done - status.resumed)
        self._bar.update(status.share, status.words(time.perf_counter() - self._began))
        self._poll()
