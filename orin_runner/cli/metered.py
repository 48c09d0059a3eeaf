"""A run's tasks, one after the other, with a meter and one progress line beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from eval.evaluate import Prepared, evaluate
from eval.progress import Status
from eval.runs.meter import Meter
from eval.runs.samples import SAMPLES
from eval.runs.writer import RunWriter
from eval.sent_tokens import AskedTokens
from eval.time_left import TimeLeft
from orin_runner.cli.expected import Expected
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
    asked: Mapping[str, AskedTokens],
    expected: Expected,
) -> tuple[dict[str, Any], dict[str, Any] | None, int]:
    """Run the tasks, up to one that is interrupted, with a meter beside them.

    Args:
        start_s: seconds from the start of the process to the start of the command.
        began: the start of the process, on the scale of ``time.perf_counter``.
        poll: called whenever a task has come further; what it raises ends the run.
        where: the replicas run.
        asked: what the tasks ask for, as ``TimeLeft`` wants it.
        expected: how long they should take.

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
    label = prepared[0].task.name if len(prepared) == 1 else f"{len(prepared)} tasks"
    with (
        Meter(writer.directory / SAMPLES, sensors, unified=unified, elsewhere=beyond) as meter,
        notes.progress(label, 1.0) as bar,
    ):
        time_left = TimeLeft(asked, {task: expected.seconds[task] for task in expected.measured}, expected.steps)
        show = _RunProgress(meter, bar, time_left, len(prepared), poll)
        for item in prepared:
            name = item.task.name
            show.begin(name)
            clocks = {"start": start_s, "load": supervisor.loaded.seconds}
            elsewhere = sum(sum(other.clocks.values()) for other in prepared if other is not item) + ran
            process_clock = partial(_process_clock, began, elsewhere)
            before = time.perf_counter()
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


class _RunProgress:
    """Tells meter and progress line how far a run is, and calls ``poll``."""

    def __init__(self, meter: Meter, bar: Bar, time_left: TimeLeft, n_tasks: int, poll: Callable[[], None]) -> None:
        self._meter, self._bar, self._time_left, self._poll = meter, bar, time_left, poll
        self._n_tasks, self._task, self._began = n_tasks, 0, 0.0
        self._name = ""

    def begin(self, name: str) -> None:
        """The next task begins."""
        self._task, self._began = self._task + 1, time.perf_counter()
        self._name = f"{name} ({self._task} of {self._n_tasks}) " if self._n_tasks > 1 else ""
        self._meter.begin(name)
        self._time_left.begin(name, self._began)

    def __call__(self, status: Status) -> None:
        now = time.perf_counter()
        self._meter.update(status.computed, status.done - status.resumed)
        left = self._time_left.left(status, now)
        share = None if left is None else self._time_left.share(left, now)
        self._bar.update(share, f"{self._name}{status.words(now - self._began)}", left)
        self._poll()
