"""How long a run of several tasks will still take.

A task computes its prompts and, where it generates, in each decode step a token of each text. Prompts are counted
beforehand. The length to expect of a text is the tokens of all texts so far over those that have come to an end: the
mean of an exponential distribution, of which the others are censored samples. What a token takes is what it took so
far, those of prompts and those of texts told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from eval.progress import Status
from eval.sent_tokens import AskedTokens

WEIGHT = 8
"""Texts that count for the length that was expected before."""
FADING_S = 30.0
"""Seconds after which an update counts half: in the course of a task its batches change."""
DOUBT = 32
"""Tokens of texts that count as if they took no longer than those of prompts: the first ones say little."""
LEAST_SHARE = 0.01
"""Of a task's prompts, before which nothing is said: the first batch is slow."""


@dataclass(slots=True)
class Sums:
    """Of updates of one kind: all their tokens, those with which a text went on, their seconds. Earlier ones fade."""

    tokens: float = 0.0
    steps: float = 0.0
    seconds: float = 0.0

    def add(self, tokens: int, steps: int, seconds: float) -> None:
        """One more update."""
        kept = 0.5 ** (seconds / FADING_S)
        self.tokens = kept * self.tokens + tokens
        self.steps = kept * self.steps + steps
        self.seconds = kept * self.seconds + seconds


@dataclass(slots=True)
class TokenTimes:
    """Seconds that tokens take: each as long as one of a prompt where no text went on, and those of texts longer."""

    _prompts: Sums = field(default_factory=Sums)
    _texts: Sums = field(default_factory=Sums)

    def add(self, tokens: int, steps: int, seconds: float) -> None:
        """``tokens`` were computed in ``seconds``, ``steps`` of them with which a text went on."""
        (self._texts if steps else self._prompts).add(tokens, steps, seconds)

    @property
    def known(self) -> bool:
        """Whether anything is."""
        return self._prompts.tokens + self._texts.tokens > 0

    def of(self, prompts: float, steps: float) -> float:
        """Seconds of so many tokens of prompts, and of texts."""
        texts = self._texts
        plain = self._prompts if self._prompts.tokens else texts
        each = plain.seconds / plain.tokens
        longer = max(0.0, texts.seconds - each * texts.tokens) / (texts.steps + DOUBT)
        return each * (prompts + steps) + longer * steps


class TimeLeft:
    """How long a run will still take, over all its tasks.

    Args:
        tasks: what each asks for, in their order; none of one that is the only one and generates nothing.
        measured: seconds that tasks took in earlier runs; of others the pace of this one goes on.
        steps: decode steps to expect of a text, by task.
    """

    def __init__(
        self, tasks: Mapping[str, AskedTokens], measured: Mapping[str, float], steps: Mapping[str, float]
    ) -> None:
        self._to_come = dict(tasks)
        self._measured, self._steps = measured, steps
        self._times = TokenTimes()
        self._began: float | None = None
        self._expected = 0.0  # decode steps of a text of the task that goes on
        self._last = (0.0, 0, 0)  # seconds, tokens computed, steps of these

    def begin(self, task: str, now: float) -> None:
        """A task begins, and the one before is over; ``now`` in seconds."""
        self._began = now if self._began is None else self._began
        self._to_come.pop(task, None)
        self._expected = self._steps.get(task, 0.0)
        self._last = (now, 0, 0)

    def left(self, status: Status, now: float) -> float | None:
        """Seconds of the task that goes on and of those to come; None where too little is known.

        Args:
            status: how far that task is.
            now: in seconds, never before an earlier call's.
        """
        before, computed, steps = self._last
        if status.computed > computed:
            if computed:  # what comes before the first batch takes time of its own
                self._times.add(status.computed - computed, status.steps - steps, now - before)
            self._last = (now, status.computed, status.steps)
        prompts = status.computed - status.steps
        if not self._times.known or prompts + status.restored < LEAST_SHARE * status.asked:
            return None
        to_come = 0.0
        if status.bound:
            answered, still = status.done - status.resumed, status.items - status.done
            length = (status.steps + WEIGHT * self._expected) / (answered + WEIGHT)
            to_come = still * min(status.bound, length)
        own = self._times.of(max(0, status.asked - status.restored - prompts), to_come)
        return own + sum(map(self._whole, self._to_come))

    def share(self, left: float, now: float) -> float:
        """How much of the run is done, 0 to 1, where ``left`` seconds are left."""
        passed = now - (now if self._began is None else self._began)
        return passed / (passed + left) if passed else 0.0

    def _whole(self, task: str) -> float:
        """Seconds of a task that has not begun."""
        if task in self._measured:
            return self._measured[task]
        asked = self._to_come[task]
        return self._times.of(asked.unique, asked.texts * self._steps.get(task, 0.0))
