"""From logit rows to log-probabilities, on threads, in blocks of bounded memory.

Row-wise log-softmax over the vocabulary is the only arithmetic the host does. It runs while the device computes the
next batch; NumPy releases the interpreter lock inside each operation.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

BLOCK_BYTES = 2 << 20
"""Bytes of rows one thread works on at a time: they and their exponentials stay in its cache."""

SPARE_BUFFERS = 3
"""Copies of output rows that a run has in flight: being copied, being scored, waiting."""

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


def log_sum_exp(rows: Float32) -> Float64:
    """Natural log of the sum of exponentials of each row, float32 ``[n, v]`` to float64 ``[n]``."""
    top = rows.max(axis=1)
    shifted = rows - top[:, None]
    np.exp(shifted, out=shifted)
    # NumPy adds pairwise along a row, so float32 costs no more than 1e-6 here and half the time of float64.
    total: Float64 = top.astype(np.float64) + np.log(shifted.sum(axis=1).astype(np.float64))
    return total


def best_and_lead(rows: Float32) -> tuple[Int64, Float32]:
    """Each row's largest logit's token (the first one, in a tie) and its lead over the second-best, in nats."""
    best = rows.argmax(axis=1)
    each = np.arange(len(rows))
    top = rows[each, best]
    rest = rows.copy()
    rest[each, best] = -np.inf
    return best, top - rest.max(axis=1)


class RowFacts:
    """What is kept of every output row of a run; the rows themselves are not.

    Attributes:
        total: float64 ``[n]``, log-sum-exp of the logits.
        best: int64 ``[n]``, the argmax token.
        lead: float32 ``[n]``, best minus second-best logit.
        top: float64 ``[n]``, log-probability of the argmax token.
    """

    __slots__ = ("best", "lead", "top", "total")

    def __init__(self, n: int) -> None:
        self.total = np.full(n, np.nan)
        self.best = np.full(n, -1, dtype=np.int64)
        self.lead = np.full(n, np.nan, dtype=np.float32)
        self.top = np.full(n, np.nan)

    def fill(self, start: int, rows: Float32) -> None:
        """Write the facts of ``rows`` as rows ``start`` and following."""
        end = start + len(rows)
        self.total[start:end] = log_sum_exp(rows)
        self.best[start:end], self.lead[start:end] = best_and_lead(rows)
        self.top[start:end] = rows[np.arange(len(rows)), self.best[start:end]] - self.total[start:end]


class RowScorer:
    """Runs row work on threads.

    Args:
        n_threads: worker threads.
    """

    def __init__(self, n_threads: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=n_threads, thread_name_prefix="score")
        self._spare: list[Float32] = []

    def close(self) -> None:
        """Stop the threads when they are done."""
        self._pool.shutdown()

    def snapshot(self, rows: Float32) -> Float32:
        """A copy of llama.cpp's output buffer, made by all threads together; ``recycle`` it when it is done with."""
        # Fresh pages cost several times what the copy itself does, so the few buffers of a run are used again.
        fitting = [k for k, spare in enumerate(self._spare) if len(spare) >= len(rows)]
        buffer = self._spare.pop(fitting[0]) if fitting else np.empty_like(rows)
        out = buffer[: len(rows)]
        _wait(self._each_block(rows, lambda a, b: np.copyto(out[a:b], rows[a:b])))
        return out

    def recycle(self, snapshot: Float32) -> None:
        """Take back what ``snapshot`` returned, to be overwritten by a later one."""
        if len(snapshot):
            buffer: Float32 = snapshot if snapshot.base is None else snapshot.base
            self._spare = sorted([*self._spare, buffer], key=len)[-SPARE_BUFFERS:]

    def submit(
        self, rows: Float32, facts: RowFacts, start: int, row_of: Int64, tokens: Int64, logprobs: Float64
    ) -> list[Future[None]]:
        """Start writing the facts of ``rows`` and the log-probability each probe asks for.

        Args:
            rows: float32 ``[n, v]``, not changed until the futures are done.
            facts: receives the rows' facts at ``start`` and following.
            start: index of the first row in ``facts``.
            row_of: int64 ``[k]``, ascending: the row each probe looks at.
            tokens: int64 ``[k]``: the token each probe asks for.
            logprobs: float64 ``[k]``, receives natural-log probabilities.
        """

        def work(a: int, b: int) -> None:
            block = rows[a:b]
            facts.fill(start + a, block)
            first, last = np.searchsorted(row_of, [a, b])
            at = row_of[first:last]
            logprobs[first:last] = rows[at, tokens[first:last]] - facts.total[start + at]

        return self._each_block(rows, work)

    def _each_block(self, rows: Float32, work: Callable[[int, int], None]) -> list[Future[None]]:
        step = max(1, BLOCK_BYTES // (4 * rows.shape[1]))
        return [self._pool.submit(work, a, min(a + step, len(rows))) for a in range(0, len(rows), step)]


def _wait(futures: list[Future[None]]) -> None:
    for future in futures:
        future.result()
