"""How the decode calls of a run are cut: contexts that take turns, and the tokens of a call and of a computation."""

from __future__ import annotations

from dataclasses import dataclass

SIZES = (256, 512, 1024, 2048)
"""Tokens of a batch and of a ubatch that may be the fastest: fewer fill no GPU, and the canonical shape of greedy texts
has 256."""
MOST_CONTEXTS = 8
"""Of a run."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a context that a run's speed depends on, and how many contexts there are.

    Attributes:
        n_contexts: that take turns.
        n_batch: most tokens of one decode call.
        n_ubatch: tokens computed at a time.
    """

    n_contexts: int
    n_batch: int
    n_ubatch: int

    @property
    def sound(self) -> bool:
        """Whether a run can have it."""
        return 1 <= self.n_contexts <= MOST_CONTEXTS and SIZES[0] <= self.n_ubatch <= self.n_batch <= SIZES[-1]

    def __str__(self) -> str:
        several = f"{self.n_contexts} contexts of " if self.n_contexts > 1 else ""
        return f"{several}n_batch {self.n_batch}, n_ubatch {self.n_ubatch}"


def score_shapes(*, own_memory: bool) -> list[Shape]:
    """Those that may be the fastest for prompts.

    Args:
        own_memory: the device has a memory of its own: while it computes for one context, the host prepares the others.
    """
    single = [Shape(1, batch, ubatch) for ubatch in SIZES for batch in dict.fromkeys((ubatch, SIZES[-1]))]
    several = [(2, 512), (2, 1024), (2, 2048), (3, 1024)] if own_memory else [(2, 1024)]
    return single + [Shape(n, size, size) for n, size in several]


def text_shapes(best: Shape, *, own_memory: bool) -> list[Shape]:
    """Those that may be the fastest for texts where ``best`` is for prompts: with other numbers of contexts."""
    size = best.n_ubatch
    return [best, *(Shape(n, size, size) for n in range(1, 5 if own_memory else 3))]
