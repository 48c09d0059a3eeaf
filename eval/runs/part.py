"""``parts.json``: what each part of a run has cost, by task. A run has one part, and one more each time it is resumed.

The file is written again about once a second while a task is asked, so that a part that was killed has left what it
cost until then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orin_runner.files import json_text, read_bytes, write_whole
from orin_runner.runner import RunStats
from orin_runner.schema import Schema, bounded

PARTS = "parts.json"


@dataclass(frozen=True, slots=True)
class TaskCost:
    """What a part of a run, or several parts together, have cost.

    Attributes:
        items: answered in it, without those for which there was no memory.
        clocks: seconds by name, as in ``report.json``; ``process`` is the 2023 clock.
        stats: of the runner.
        asked_sent, asked_unique: of its ``sent`` and ``unique``, what was asked: prompts and choices, answered or not.
            The rest are the texts.
    """

    items: int = 0
    clocks: dict[str, float] = field(default_factory=dict)
    stats: RunStats = field(default_factory=RunStats)
    asked_sent: int = 0
    asked_unique: int = 0

    def together(self, other: TaskCost) -> TaskCost:
        """Both: sums, and the larger noise."""
        names = dict.fromkeys([*self.clocks, *other.clocks])
        clocks = {name: self.clocks.get(name, 0.0) + other.clocks.get(name, 0.0) for name in names}
        return TaskCost(
            self.items + other.items,
            clocks,
            self.stats.together(other.stats),
            self.asked_sent + other.asked_sent,
            self.asked_unique + other.asked_unique,
        )


Part = dict[str, TaskCost]
"""By task."""
FORM = Schema(list[Part])


def read_parts(path: Path) -> list[Part]:
    """The parts of a run; none where there is no such file (runs before there were parts), or where it is damaged.

    Raises:
        UserError: it is no file at all.
    """
    try:
        parts = FORM.parse(read_bytes(path))
    except (FileNotFoundError, ValueError):
        return []
    return parts if all(bounded(_numbers(asdict(cost))) for part in parts for cost in part.values()) else []


def write_parts(path: Path, parts: Sequence[Part]) -> None:
    """What ``read_parts`` reads."""
    costs = [{task: asdict(cost) for task, cost in part.items()} for part in parts]
    write_whole(path, json_text(costs, indent=1) + "\n")


def _numbers(value: Any) -> Iterator[float]:
    """All numbers of a JSON value."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _numbers(inner)
    else:
        yield value
