"""How far a task is, in numbers and in the words of its progress line.

``orin_runner.console`` puts the line together: the label, the percentage, these words, the time left (``time_left``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Status:
    """How far a task is.

    Attributes:
        done: items answered, those of ``resumed`` included.
        right: how many of them are correct.
        items: of the task.
        computed: tokens computed so far.
        unique, sent: tokens of all that is asked, and of the texts so far; 0 until they are counted.
        resumed: items that needed no answer, because an earlier run gave it or memory does not allow one.
        asked: of ``unique``, those of prompts and choices.
        restored: of these, what came from the prompt cache so far.
        steps: of the tokens computed, those of decode steps (``orin_runner.runner.DecodeStats``).
        bound: tokens that a text may have, on average; 0 where none is generated.
    """

    done: int
    right: int
    items: int
    computed: int
    unique: int
    sent: int
    resumed: int
    asked: int = 0
    restored: int = 0
    steps: int = 0
    bound: float = 0.0

    @property
    def saved(self) -> float:
        """Share of the tokens sent that is not computed, if each unique token still missing is computed once."""
        return max(0.0, 1.0 - max(self.computed, self.unique) / self.sent) if self.sent else 0.0

    def words(self, seconds: float) -> str:
        """Accuracy so far, rate, and tokens that need not be computed, ``seconds`` after the task began."""
        right = f", {self.right / self.done:.1%} right" if self.done else ""
        rate = f", {(self.done - self.resumed) / seconds:.1f} items/s" if seconds > 0 else ""
        saved = f", {self.saved:.0%} of tokens saved" if self.sent else ""
        return f"{self.done}/{self.items} items{right}{rate}{saved}"


OnStatus = Callable[[Status], None]
