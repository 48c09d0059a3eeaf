"""From logit rows to log-probabilities, on threads, in blocks of bounded memory.

Row-wise log-softmax over the vocabulary is the only arithmetic the host does. For scores it runs while the device
computes the next batch, for texts, which need it first, on all threads at once; NumPy releases the interpreter lock
inside each operation.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

BLOCK_BYTES = 2 << 20
"""Bytes of rows one thread works on at a time: they and their exponentials stay in its cache."""

MOST_THREADS = 4
"""Threads that score rows while the device is fed: more of them wait for Python's lock, and keep the one that feeds it
waiting for it. With 16 a batch took the host three times as long on an H100's machine."""

quiet = np.errstate(invalid="ignore")
"""NaN and Inf in a row of logits are told by the result (``requests.NOT_FINITE``), not by a warning."""

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@quiet
def log_sum_exp(rows: Float32, top: Float32, scratch: Float32) -> Float64:
    """Natural log of the sum of exponentials of each row, float32 ``[n, v]`` to float64 ``[n]``.

    Args:
        rows: logits.
        top: float32 ``[n]``, each row's largest.
        scratch: float32 ``[n, v]`` to work in, overwritten.
    """
    np.subtract(rows, top[:, None], out=scratch)
    np.exp(scratch, out=scratch)
    # NumPy adds pairwise along a row, so float32 costs no more than 1e-6 here and half the time of float64.
    total: Float64 = top.astype(np.float64) + np.log(scratch.sum(axis=1).astype(np.float64))
    return total


class RowFacts:
    """What is kept of every output row of a run; the rows themselves are not.

    Args:
        n: rows.
        leads: work out ``lead``, which only greedy text needs.

    Attributes:
        total: float64 ``[n]``, log-sum-exp of the logits.
        best: int64 ``[n]``, the argmax token (the first one, in a tie).
        lead: float32 ``[n]``, best minus second-best logit, in nats; NaN where it is not worked out.
        top: float64 ``[n]``, log-probability of the argmax token.
    """

    __slots__ = ("best", "lead", "leads", "top", "total")

    def __init__(self, n: int, *, leads: bool = True) -> None:
        self.leads = leads
        self.total = np.full(n, np.nan)
        self.best = np.full(n, -1, dtype=np.int64)
        self.lead = np.full(n, np.nan, dtype=np.float32)
        self.top = np.full(n, np.nan)

    def put(self, start: int, found: RowFacts, skip: int) -> None:
        """Take the rows of ``found`` from ``skip`` on as rows ``start`` and following."""
        end = start + len(found.total) - skip
        for name in ("total", "best", "lead", "top"):
            getattr(self, name)[start:end] = getattr(found, name)[skip:]

    @quiet
    def fill(self, start: int, rows: Float32, scratch: Float32) -> None:
        """Write the facts of ``rows`` as rows ``start`` and following; ``scratch`` is room for as many rows."""
        end = start + len(rows)
        each = np.arange(len(rows))
        best = rows.argmax(axis=1)
        top = rows[each, best]
        self.best[start:end] = best
        self.total[start:end] = log_sum_exp(rows, top, scratch)
        self.top[start:end] = top - self.total[start:end]
        if self.leads:
            np.copyto(scratch, rows)
            scratch[each, best] = -np.inf
            self.lead[start:end] = top - scratch.max(axis=1)


class RowScorer:
    """Runs row work on threads.

    Args:
        n_threads: worker threads; in the background at most ``MOST_THREADS`` of them.
    """

    def __init__(self, n_threads: int) -> None:
        self._n_threads = n_threads
        self._background = ThreadPoolExecutor(min(n_threads, MOST_THREADS), "score")
        # What the device waits for must not stand in line behind rows being scored.
        self._urgent = ThreadPoolExecutor(n_threads, "urgent")
        # Each thread keeps its temporaries: new pages for every block would cost more than the arithmetic, and the
        # threads would wait for one another in the kernel.
        self._local = threading.local()
        self._spare: list[Float32] = []

    def close(self) -> None:
        """Stop the threads when they are done."""
        self._background.shutdown()
        self._urgent.shutdown()

    def snapshot(self, rows: Float32, most_rows: int) -> Float32:
        """A copy of llama.cpp's output buffer, made by all threads together; ``recycle`` it when it is done with.

        Args:
            rows: float32 ``[n, v]``.
            most_rows: rows that any batch of the run may have, the same in every call.
        """
        # Fresh pages cost several times what the copy itself does, so the few buffers of a run are used again. All
        # are of one size: the memory plan counts as many as are in flight.
        buffer = self._spare.pop() if self._spare else np.empty((most_rows, rows.shape[1]), dtype=np.float32)
        out = buffer[: len(rows)]
        step = max(1, -(-len(rows) // self._n_threads))
        parts = [slice(a, a + step) for a in range(0, len(rows), step)]
        _wait([self._urgent.submit(np.copyto, out[part], rows[part]) for part in parts])
        return out

    def recycle(self, snapshot: Float32) -> None:
        """Take back what ``snapshot`` returned, to be overwritten by a later one."""
        if len(snapshot):
            self._spare.append(snapshot.base if snapshot.base is not None else snapshot)

    def facts(self, rows: Float32) -> RowFacts:
        """The facts of ``rows``, worked out by all threads together."""
        found = RowFacts(len(rows))
        step = min(_block_rows(rows), -(-len(rows) // self._n_threads))
        _wait(_each_block(self._urgent, rows, lambda a, b: found.fill(a, rows[a:b], self._scratch(rows[a:b])), step))
        return found

    def submit(
        self, rows: Float32, facts: RowFacts, start: int, row_of: Int64, tokens: Int64, logprobs: Float64
    ) -> list[Future[None]]:
        """Start writing the facts of ``rows`` and the log-probability of each wanted token.

        Args:
            rows: float32 ``[n, v]``, not changed until the futures are done.
            facts: receives the rows' facts at ``start`` and following.
            start: index of the first row in ``facts``.
            row_of: int64 ``[k]``, ascending: the row of each wanted token.
            tokens: int64 ``[k]``: the wanted tokens.
            logprobs: float64 ``[k]``, receives natural-log probabilities.

        Returns:
            One future a block, each done when its rows are.
        """

        @quiet
        def work(a: int, b: int) -> None:
            block = rows[a:b]
            facts.fill(start + a, block, self._scratch(block))
            first, last = np.searchsorted(row_of, [a, b])
            at = row_of[first:last]
            logprobs[first:last] = rows[at, tokens[first:last]] - facts.total[start + at]

        return _each_block(self._background, rows, work, _block_rows(rows))

    def _scratch(self, block: Float32) -> Float32:
        """Room for ``block``, the same for every block of this thread."""
        buffer: Float32 | None = getattr(self._local, "buffer", None)
        if buffer is None or buffer.shape[0] < block.shape[0] or buffer.shape[1] != block.shape[1]:
            buffer = self._local.buffer = np.empty((max(len(block), _block_rows(block)), block.shape[1]), np.float32)
        return buffer[: len(block)]


def _each_block(
    pool: ThreadPoolExecutor, rows: Float32, work: Callable[[int, int], None], step: int
) -> list[Future[None]]:
    return [pool.submit(work, a, min(a + step, len(rows))) for a in range(0, len(rows), max(1, step))]


def _block_rows(rows: Float32) -> int:
    return max(1, BLOCK_BYTES // (4 * int(rows.shape[1])))


def _wait(futures: list[Future[None]]) -> None:
    for future in futures:
        future.result()
