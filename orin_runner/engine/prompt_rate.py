"""How fast plain prompt processing goes on a context: what a run's rate is held against.

Much as in ``llama-bench``'s ``pp`` test with ``-p`` and ``-b`` of the context's n_batch: one sequence in an empty
cache, one decode call, one output row, over and over. No sharing, no scoring, and no row is read before the last call,
so that llama.cpp prepares each call while the device computes the one before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from orin_runner.batching.batch import BatchBuilder
from orin_runner.engine.backend import Backend
from orin_runner.engine.executor import Executor

MIN_SECONDS = 3.0
MIN_CALLS = 3


@dataclass(frozen=True, slots=True)
class PromptRate:
    """What was measured, the warm-up left out.

    Attributes:
        tokens: computed in all calls.
        seconds: from the first submission to the last row.
        calls: decode calls.
    """

    tokens: int
    seconds: float
    calls: int

    @property
    def tokens_per_s(self) -> float:
        """Over all calls."""
        return self.tokens / self.seconds

    def to_json(self) -> dict[str, float]:
        """For ``report.json``."""
        return {**asdict(self), "tokens_per_call": self.tokens // self.calls, "tokens_per_s": self.tokens_per_s}


def prompt_rate(
    backend: Backend,
    n_tokens: int,
    *,
    min_seconds: float = MIN_SECONDS,
    min_calls: int = MIN_CALLS,
    clock: Callable[[], float] = time.perf_counter,
) -> PromptRate:
    """Measure ``backend``, whose cache is empty afterwards: one call to warm up, then until both minimums are reached.

    Args:
        backend: nothing in its cache is kept.
        n_tokens: tokens per call, random but always the same ones; the context's n_batch, at most its cells.
        min_seconds: computing time to reach.
        min_calls: calls to reach.
        clock: seconds.
    """
    executor = Executor(backend)
    builder = BatchBuilder()
    builder.add(np.random.default_rng(1).integers(0, backend.n_vocab, n_tokens, dtype=np.int32), 0, 0)
    builder.flag(np.array([n_tokens - 1]))
    batch = builder.build()
    calls, seconds = -1, 0.0  # the first one does not count
    started = clock()
    while calls < min_calls or seconds < min_seconds:
        backend.clear()
        executor.prepare(batch)
        executor.submit(batch)
        calls += 1
        if calls == 0:
            executor.rows(1)
            started = clock()
        seconds = clock() - started
    executor.rows(1)
    seconds = clock() - started
    backend.clear()
    return PromptRate(calls * n_tokens, seconds, calls)
