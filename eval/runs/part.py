"""``parts.json``: what each part of a run has cost, by task. A run has one part, and one more each time it is resumed.

The file is written again about once a second while a task is asked, so that a part that was killed has left what it
cost until then.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from orin_runner.runner import DecodeStats, RunStats

PARTS = "parts.json"


@dataclass(frozen=True, slots=True)
class TaskCost:
    """What a part of a run, or several parts together, have cost.

    Attributes:
        items: answered in it, without those for which there was no memory.
        clocks: seconds by name, as in ``report.json``; ``process`` is the 2023 clock.
        stats: of the runner.
    """

    items: int = 0
    clocks: dict[str, float] = field(default_factory=dict)
    stats: RunStats = field(default_factory=RunStats)

    def together(self, other: TaskCost) -> TaskCost:
        """Both: sums, and the larger noise."""
        names = dict.fromkeys([*self.clocks, *other.clocks])
        clocks = {name: self.clocks.get(name, 0.0) + other.clocks.get(name, 0.0) for name in names}
        return TaskCost(self.items + other.items, clocks, self.stats.together(other.stats))

    def to_json(self) -> dict[str, Any]:
        """For the file."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TaskCost:
        """What ``to_json`` gave.

        Raises:
            KeyError, TypeError: it is something else.
        """
        stats = dict(value["stats"])
        return cls(value["items"], value["clocks"], RunStats(**{**stats, "device": DecodeStats(**stats["device"])}))
