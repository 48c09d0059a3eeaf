"""Runs batches on a context and refuses to go on where a prefix has been lost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from orin_runner.batching.batch import Batch, BatchBuilder
from orin_runner.batching.packer import Restored
from orin_runner.engine.backend import Backend
from orin_runner.engine.device_clock import DeviceClock
from orin_runner.engine.submissions import Submissions
from orin_runner.requests import Tokens, common_prefix
from orin_runner.runner import DecodeStats

Row = npt.NDArray[np.float32]
Rows = npt.NDArray[np.float32]

CANONICAL_CHUNK = 256
"""Tokens per decode call of the canonical shape: a constant, so that no budget can decide a text. It is the smallest
n_batch that a memory plan uses."""


class LostPrefixError(RuntimeError):
    """A sequence does not hold the positions its next tokens build on. llama.cpp itself would not notice."""


class Executor:
    """Submits batches with their cache operations around them, in the order the device needs them.

    The **canonical shape** is one sequence in an empty cache, ``n_chunk`` tokens a decode call from position 0, one
    output row. Its logits are a function of the tokens alone, whatever else the run contains.

    Args:
        backend: a context.
        n_chunk: tokens per decode call of the canonical shape.
        own_thread: submit on a thread of its own, so that ``submit`` returns at once.
    """

    def __init__(self, backend: Backend, n_chunk: int = CANONICAL_CHUNK, *, own_thread: bool = False) -> None:
        self.backend = backend
        self._n_chunk = n_chunk
        self._clock, self._checks = DeviceClock(DecodeStats()), DecodeStats()
        self._submissions = Submissions(backend, own_thread=own_thread)
        self._counted = True  # the seconds of the last submission

    def count_into(self, clock: DeviceClock, checks: DecodeStats) -> None:
        """From now on ``clock`` receives the counts of the calls, and ``checks`` those of the canonical shape."""
        self._clock, self._checks = clock, checks

    def prepare(self, batch: Batch) -> None:
        """Make the batch's copies and check them. It may run while the device computes.

        Raises:
            LostPrefixError: a sequence that the batch extends is not what it should be.
            DecodeError: the batch before was refused.
        """
        self._await_submission()
        for copy in batch.copies:
            self.backend.copy(copy.src, copy.dst, copy.end)
        window = self.backend.n_swa
        for seq, start in batch.extends:
            low, high = self.backend.span(seq)
            seen_from = max(0, start - window + 1) if window else 0
            if high != start - 1 or (start and low > seen_from):
                raise LostPrefixError(
                    f"sequence {seq} holds positions {low} to {high} where it needs {seen_from} to {start - 1}"
                )

    def submit(self, batch: Batch, n_steps: int = 0) -> None:
        """Start a prepared batch and make its cuts. On a GPU this returns before the batch is computed.

        An error of the backend's is raised here or, with a thread of its own, by the next call.

        Args:
            batch: not empty.
            n_steps: tokens of it with which a text goes on, and drafts behind them.
        """
        self._submissions.begin(batch)
        self._counted = False
        stats = self._clock.stats
        stats.tokens += len(batch.tokens)
        stats.steps += n_steps
        stats.calls += 1

    def rows(self, n: int) -> Row:
        """Wait for the last batch and return its ``n`` logit rows, valid until the next ``submit``."""
        started = time.perf_counter()
        submission = self._await_submission()
        done = self._submissions.done()
        rows = self.backend.logits(n)
        self._clock.stats.wait_s += time.perf_counter() - max(started, submission[1])
        self._clock.busy(*submission, done)
        self._clock.stats.rows += n
        return rows

    def rest(self) -> None:
        """Wait until no thread uses the context any more: it may be freed then."""
        self._submissions.rest()
        self._counted = True

    def _await_device(self) -> None:
        """Wait until the last batch is computed."""
        self._await_submission()
        self._submissions.done()

    def _await_submission(self) -> tuple[float, float]:
        """Wait until the last batch has been handed to the device; when that began and ended."""
        began, ended = self._submissions.submitted()
        if not self._counted:
            self._counted = True
            self._clock.stats.submit_s += ended - began
        return began, ended

    def state(self, seq: int) -> bytes:
        """What ``seq`` holds, as bytes; waits for the device."""
        self._await_device()
        return self.backend.state(seq)

    def restore(self, restored: Restored, payload: bytes) -> bool:
        """Carry out ``restored``; False if llama.cpp refuses the payload. Waits for the device."""
        self._await_device()
        for seq in restored.cut:
            self.backend.cut(seq, 0)
        if not self.backend.set_state(restored.holder, payload):
            return False
        self.backend.copy(restored.holder, restored.pin, restored.n)
        return True

    def canonical_rows(self, paths: Sequence[Tokens]) -> Iterator[Row]:
        """The logits after each of ``paths`` in the canonical shape, float32 ``[n_vocab]`` copies, in their order.

        Args:
            paths: int32 arrays, each of at least one token.
        """
        yield from (rows[0] for rows in self.rows_alone(paths, [1] * len(paths)))

    def rows_alone(self, paths: Sequence[Tokens], n_last: Sequence[int]) -> Iterator[Rows]:
        """The logits after the last tokens of each of ``paths``, in the canonical shape but for the number of rows.

        Whole chunks that a path shares with the one before stay in the cache: the same cells hold the same then as if
        they had been computed anew. So sort the paths. What the cache held is gone.

        Args:
            paths: int32 arrays, each of at least one token.
            n_last: per path, after how many of its last tokens: at least one, at most the rows of a decode call.

        Yields:
            float32 ``[n_last, n_vocab]`` copies, in the order of ``paths``.
        """
        own = Executor(self.backend)
        own.count_into(DeviceClock(self._checks), self._checks)
        before = np.empty(0, dtype=np.int32)
        try:
            for tokens, n in zip(paths, n_last, strict=True):
                wanted = len(tokens) - n
                shared = min(common_prefix(before, tokens), wanted) // self._n_chunk * self._n_chunk
                self.backend.cut(0, shared)
                # Behind a sliding window's edge cells may have been used again by what followed.
                if not shared or self.backend.span(0) != (0, shared - 1):
                    self.backend.clear()
                    shared = 0
                found = []
                for start in range(shared, len(tokens), self._n_chunk):
                    part = tokens[start : start + self._n_chunk]
                    flagged = np.arange(max(0, wanted - start), len(part))
                    builder = BatchBuilder()
                    builder.add(part, start, 0)
                    builder.flag(flagged)
                    batch = builder.build()
                    own.prepare(batch)
                    own.submit(batch)
                    if len(flagged):
                        found.append(own.rows(len(flagged)).copy())
                before = tokens
                yield np.concatenate(found)
        finally:
            self._clock.pause()
            self.backend.clear()
