"""How much rounding moves the run's log-probabilities, measured on rows of its own.

The order of the same work changes results by rounding. So some rows of every run are computed again in the canonical
shape (``Executor``), and the largest difference of any log-probability is the run's **noise**. Scores are measured on
the last row of some requests; texts on rows of the first round of decoding, whose batches have other shapes.

That is a sample. A lead below three times the noise counts as a **near-tie**: both tokens may move by the noise, and
the sample may not have shown all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orin_runner.engine.executor import Executor, Row
from orin_runner.engine.logits import log_sum_exp
from orin_runner.requests import Tokens

Int64 = npt.NDArray[np.int64]

LEAST_NOISE = 0.005
"""Noise below this is taken as this, in nats: a few short prompts are computed much as in the canonical shape, and show
less than full batches have. Those of 16-bit models moved log-probabilities by 0.005 (CPU) to 0.1 (CUDA)."""
NOISES_OF_A_TIE = 3
"""Leads of fewer noises than this are near-ties."""

SCORE_ROWS = 8
"""At most so many rows of scores are computed again ..."""
SCORE_SHARE = 0.0025
"""... costing at most this share of the run's unique tokens ..."""
SCORE_ROWS_AT_LEAST = 4
"""... though at least so many are."""

TEXT_ROWS = 8
"""Rows of the first round of decoding that are computed again: half of them rows of prompts and candidates, half of
decode steps ..."""
TEXT_SHARE = 1 / 8
"""... and of a short run's texts no more than this share, though at least half of ``TEXT_ROWS``."""
MOST_KEPT = 32
"""Rows of each kind that are kept at a time during that round."""


def near_tie(noise: float) -> float:
    """A lead below this may be rounding, in nats."""
    return NOISES_OF_A_TIE * max(noise, LEAST_NOISE)


def largest_difference(a: Row, b: Row) -> float:
    """Largest difference of any log-probability between two rows of logits, in nats."""
    total = [float(log_sum_exp(row[None, :], row.max(keepdims=True), np.empty_like(row[None, :]))[0]) for row in (a, b)]
    return float(np.abs((a.astype(np.float64) - total[0]) - (b.astype(np.float64) - total[1])).max())


class Noise:
    """What a run has shown of its noise so far.

    Args:
        executor: computes rows again; its cache is empty before and after.

    Attributes:
        largest: largest difference of any log-probability seen, in nats.
        n_rows: rows that it was measured on.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.largest = 0.0
        self.n_rows = 0

    @property
    def near_tie(self) -> float:
        """A lead below this may be rounding, in nats."""
        return near_tie(self.largest)

    def measure(self, rows: Sequence[tuple[Tokens, Row]]) -> None:
        """Compare rows with the same rows in the canonical shape.

        Args:
            rows: tokens and the logits after them, float32 ``[n_vocab]``.
        """
        ordered = sorted(rows, key=lambda item: item[0].tobytes())
        again = self._executor.canonical_rows([tokens for tokens, _ in ordered])
        for (_, row), canonical in zip(ordered, again, strict=True):
            self.largest = max(self.largest, largest_difference(row, canonical))
            self.n_rows += 1


def rows_to_check(lengths: Int64, n_unique: int) -> list[int]:
    """Which of a run's score requests to measure on: evenly spread, as many as the allowance pays for.

    Args:
        lengths: int64 ``[n]``, tokens that each request's last row takes.
        n_unique: unique tokens of the run.
    """
    spread = middles(len(lengths), SCORE_ROWS).tolist()
    picked: list[int] = []
    cost = 0
    # Every other one first: the allowance may end the list early.
    for i in [*spread[::2], *spread[1::2]]:
        cost += int(lengths[i])
        if len(picked) >= SCORE_ROWS_AT_LEAST and cost > SCORE_SHARE * n_unique:
            break
        picked.append(i)
    return picked


def n_text_rows(n_texts: int) -> int:
    """Rows of each kind to measure a round of ``n_texts`` texts on."""
    return max(TEXT_ROWS // 2, min(TEXT_ROWS, round(TEXT_SHARE * n_texts))) // 2


class KeptRows:
    """Rows of logits and the tokens they follow, spread over a round."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, Tokens, Row]] = []
        self._every = 1
        self._seen = 0

    def take(self, n_tokens: int, tokens: Tokens, row: Row) -> None:
        """Keep the row of a batch of ``n_tokens``, a copy, or not: of many, every other one, then every fourth, ..."""
        if self._seen % self._every == 0:
            self._kept.append((n_tokens, tokens, row.copy()))
            if len(self._kept) > MOST_KEPT:
                del self._kept[1::2]
                self._every *= 2
        self._seen += 1

    def spread(self, n: int) -> list[tuple[Tokens, Row]]:
        """At most ``n`` of them, of the fuller batches: a small one is computed much as the canonical shape is."""
        median = sorted(size for size, _, _ in self._kept)[len(self._kept) // 2] if self._kept else 0
        fuller = [(tokens, row) for size, tokens, row in self._kept if size >= median]
        return [fuller[at] for at in middles(len(fuller), n).tolist()]


def middles(n: int, parts: int) -> Int64:
    """Indices in the middle of each of at most ``parts`` equal parts of ``n``.

    Not at the edges: the first request of a run is computed much as in the canonical shape.
    """
    parts = min(parts, n)
    return ((np.arange(parts) + 0.5) * n / max(parts, 1)).astype(np.int64)
