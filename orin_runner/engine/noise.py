"""How much rounding moves a run's numbers, measured on some of them.

The order of the same work changes results by rounding. So some numbers of every run are computed again, each sequence
alone in an empty cache (``Executor``), and compared.

Scores: the log-probabilities that are wanted of some paths. Their differences have no common sign, so a sum of n moves
by the root of n times their root mean square, and a margin between sums of n and m tokens by the root of n + m times
it (measured: benchmarks/RESULTS.md). Texts: rows of the first round of decoding, whose batches have other shapes; of a
row the log-probability that moved most counts, since any two tokens may be the best ones.

That is a sample. A **near-tie** is what several times as much can turn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orin_runner.engine.executor import Executor, Row
from orin_runner.engine.logits import log_sum_exp
from orin_runner.engine.wanted_tokens import WantedTokens
from orin_runner.requests import Tokens
from orin_runner.runner import Noise

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

LEAST_NOISE = 0.005
"""Noise below this is taken as this, in nats: a few short prompts are computed much as in the canonical shape, and show
less than full batches have. Those of 16-bit models moved log-probabilities by 0.005 (CPU) to 0.1 (CUDA)."""
NOISES_OF_A_LEAD = 3
"""A text's near-tie is so many times the largest difference."""

SCORE_PATHS = 16
"""At most so many paths of score requests are computed again ..."""
SCORE_SHARE = 0.0025
"""... costing at most this share of the tokens that the run computed ..."""
SCORE_PATHS_ENOUGH = 8
"""... though so many may cost ..."""
MOST_SCORE_SHARE = 0.05
"""... up to this share; at least one path is computed again."""
NOISES_OF_A_SCORE = 6
"""A score's near-tie is so many root mean squares: of 600 margins of the tiny model the widest moved by 4.7 of them,
and eight paths may show three quarters of the true one."""
WIDER = {1: 5.3, 2: 2.1, 3: 1.5, 4: 1.3, 5: 1.2, 6: 1.1, 7: 1.05}
"""Where fewer paths than enough were computed again a near-tie is so many times that. Of n normal numbers the root mean
square comes out below sqrt(q / n) of the true one one time in ten, q the chi-squared distribution's 0.1 quantile for n;
this is that of ``SCORE_PATHS_ENOUGH`` by that of n. A path counts as one number, as its tokens may move together."""
LEAST_RMS = 0.002
"""A smaller root mean square is taken as this, in nats, for the reason of ``LEAST_NOISE``."""

TEXT_ROWS = 8
"""Rows of the first round of decoding that are computed again: half of them rows of prompts, half of
decode steps ..."""
TEXT_SHARE = 1 / 8
"""... and of a short run's texts no more than this share, though at least half of ``TEXT_ROWS``."""
MOST_KEPT = 32
"""Rows of each kind that are kept at a time during that round."""


def largest_difference(a: Row, b: Row) -> float:
    """Largest difference of any log-probability between two rows of logits, in nats."""
    total = [float(log_sum_exp(row[None, :], row.max(keepdims=True), np.empty_like(row[None, :]))[0]) for row in (a, b)]
    return float(np.abs((a.astype(np.float64) - total[0]) - (b.astype(np.float64) - total[1])).max())


class TextNoise:
    """What a run has shown of the noise of texts so far.

    Args:
        executor: computes rows again; its cache is empty before and after.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._differences: list[float] = []

    @property
    def found(self) -> Noise:
        """What was found: of each row the log-probability that moved most."""
        largest = max(self._differences, default=0.0)
        return _noise(self._differences, NOISES_OF_A_LEAD * max(largest, LEAST_NOISE))

    @property
    def near_tie(self) -> float:
        """A lead below this may be rounding, in nats."""
        return self.found.near_tie

    def measure(self, rows: Sequence[tuple[Tokens, Row]]) -> None:
        """Compare rows with the same rows in the canonical shape.

        Args:
            rows: tokens and the logits after them, float32 ``[n_vocab]``.
        """
        ordered = sorted(rows, key=lambda item: item[0].tobytes())
        again = self._executor.canonical_rows([tokens for tokens, _ in ordered])
        for (_, row), canonical in zip(ordered, again, strict=True):
            self._differences.append(largest_difference(row, canonical))


def score_noise(
    executor: Executor, wanted: WantedTokens, logprobs: Float64, *, n_computed: int, most_rows: int, n_engines: int = 1
) -> Noise:
    """Compute the wanted tokens of some paths again, each path alone, and compare.

    Args:
        executor: computes; its cache is empty before and after.
        wanted: what the run wanted.
        logprobs: float64 ``[k]``, the log-probability of each wanted token, in nats.
        n_computed: tokens that the run has computed.
        most_rows: of logits that a decode call may have. Of a path that wants more the last ones are compared.
        n_engines: how many measure their part of it.
    """
    known = np.ones(len(wanted.paths), dtype=bool)
    known[wanted.path[np.isnan(logprobs)]] = False  # left to another engine, or not finite
    ours = np.flatnonzero(known)
    lengths = np.array([len(wanted.paths[path]) for path in ours.tolist()], dtype=np.int64)
    paths = ours[paths_to_check(lengths, n_computed, n_engines)].tolist()
    paths.sort(key=lambda path: wanted.paths[path].tobytes())
    tokens = [wanted.paths[path] for path in paths]
    first = [max(wanted.first_row(path), len(wanted.paths[path]) - most_rows) for path in paths]
    differences: list[float] = []
    again = executor.rows_alone(tokens, [len(path) - at for path, at in zip(tokens, first, strict=True)])
    for path, at, rows in zip(paths, first, again, strict=True):
        here = wanted.of_path(path)
        here = here[wanted.position[here] >= at]
        own = rows[wanted.position[here] - at]
        total = log_sum_exp(own, own.max(axis=1), np.empty_like(own))
        alone = own[np.arange(len(here)), wanted.token[here]] - total
        differences += np.abs(alone - logprobs[here]).tolist()
    rms = _noise(differences, 0.0).rms
    wider = WIDER.get(len(paths) * n_engines, 1.0)
    return _noise(differences, wider * NOISES_OF_A_SCORE * max(rms, LEAST_RMS))


def _noise(differences: Sequence[float], near_tie: float) -> Noise:
    found = np.array([value for value in differences if np.isfinite(value)])
    if not len(found):
        return Noise(near_tie=near_tie)
    return Noise(len(found), float(np.sqrt((found**2).mean())), float(found.max()), near_tie)


def paths_to_check(lengths: Int64, n_computed: int, n_engines: int = 1) -> list[int]:
    """Which of a run's paths to compute again: evenly spread, as many as the allowance pays for, at least one.

    The first that it does not pay for ends them: cheaper ones in its place would be short ones, whose batches have
    shapes nearer to the canonical one. The one is of the median length.

    Several engines share a run's allowance, so that all together compute no more again than one would.

    Args:
        lengths: int64 ``[n]``, tokens of each path.
        n_computed: tokens computed of the run, or of the part of it that these paths are.
        n_engines: how many there are.
    """
    spread = middles(len(lengths), math.ceil(SCORE_PATHS / n_engines)).tolist()
    picked: list[int] = []
    cost = 0
    # Every other one first: the allowance may end the list early.
    for i in [*spread[::2], *spread[1::2]]:
        enough = len(picked) * n_engines >= SCORE_PATHS_ENOUGH
        cost += int(lengths[i])
        if cost > (SCORE_SHARE if enough else MOST_SCORE_SHARE) * n_computed:
            break
        picked.append(i)
    return picked or [int(i) for i in np.argsort(lengths, kind="stable")[len(lengths) // 2 :][:1]]


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
