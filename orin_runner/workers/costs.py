"""What a run costs over all its workers, each of which knows only the requests it was sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from orin_runner.runner import Progress, RunStats

NOTHING = Progress(0, 0, 0)


@dataclass(slots=True)
class Costs:
    """Sums up the parts of a run: what one worker computes of one list of requests is a part.

    Attributes:
        asked: the tokens of all requests that a worker has counted, nothing computed.
        counted: the requests that these are.
        earlier: by parts that are over: tokens computed, and what their texts added to the others.
        begun: the first that the worker has said of the part at work.
        own: by that part, since then.
        earlier_stats, own_stats: what else the parts that are over have cost, and the one at work.
    """

    asked: Progress = NOTHING
    counted: set[int] = field(default_factory=set)
    earlier: Progress = NOTHING
    begun: Progress | None = None
    own: Progress = NOTHING
    earlier_stats: RunStats = field(default_factory=RunStats)
    own_stats: RunStats = field(default_factory=RunStats)

    def update(self, now: Progress, part: Sequence[int]) -> Progress:
        """The worker is so far with the requests of ``part``; how far the run is."""
        if self.begun is None:
            self.begun = now
            # A part of what was counted is counted; of what was not, nothing is.
            if not self.counted.issuperset(part):
                self.asked = _sum(self.asked, replace(now, computed=0, steps=0, restored=0))
                self.counted.update(part)
        self.own = replace(now, unique=now.unique - self.begun.unique, sent=now.sent - self.begun.sent)
        return _sum(self.asked, self.earlier, self.own)

    def part_is_over(self) -> None:
        """The part is answered, or its worker dead: another goes on."""
        self.earlier = _sum(self.earlier, self.own)
        self.earlier_stats = self.earlier_stats.together(self.own_stats)
        self.begun, self.own, self.own_stats = None, NOTHING, RunStats()

    def into(self, stats: RunStats) -> RunStats:
        """What the whole run has cost, where ``stats`` are those of the part at work."""
        self.own_stats = stats
        total = _sum(self.asked, self.earlier, self.own)
        together = self.earlier_stats.together(stats)
        return replace(together, computed=total.computed, unique=total.unique, sent=total.sent)


def _sum(*parts: Progress) -> Progress:
    return Progress(*(sum(getattr(part, count.name) for part in parts) for count in fields(Progress)))
