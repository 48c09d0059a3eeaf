"""Runs batches on a context and refuses to go on where a prefix has been lost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from orin_runner.batching.batch import Batch, BatchBuilder
from orin_runner.batching.packer import Restored
from orin_runner.batching.tree import common_prefix
from orin_runner.requests import Tokens


class Backend(Protocol):
    """What the engine needs of ``orin_runner.model.llama.Context``; tests put a fake in its place."""

    n_vocab: int
    n_swa: int

    def clear(self) -> None: ...
    def copy(self, src: int, dst: int, end: int) -> None: ...
    def cut(self, seq: int, start: int) -> None: ...
    def span(self, seq: int) -> tuple[int, int]: ...
    def submit(self, batch: Batch) -> None: ...
    def logits(self, n: int) -> npt.NDArray[np.float32]: ...
    def state(self, seq: int) -> bytes: ...
    def set_state(self, seq: int, payload: bytes) -> bool: ...
    def piece(self, token: int) -> bytes: ...


class LostPrefixError(RuntimeError):
    """A sequence does not hold the positions its next tokens build on. llama.cpp itself would not notice."""


@dataclass(slots=True)
class DecodeStats:
    """Counts and seconds of all decode calls so far, of all decoders that share it.

    Attributes:
        tokens: tokens computed.
        calls: decode calls.
        rows: logit rows read.
        submit_s: inside ``llama_decode``: its batch checks, graph and launch; on a CPU the whole computation.
        alone_s: the part of it in which no other batch was on the device.
        wait_s: waiting for logits.
        idle_s: no batch was on the device or being submitted.
        busy_until: the end of the last time in which one was.
    """

    tokens: int = 0
    calls: int = 0
    rows: int = 0
    submit_s: float = 0.0
    alone_s: float = 0.0
    wait_s: float = 0.0
    idle_s: float = 0.0
    busy_until: float | None = None

    def busy(self, start: float, submitted: float, end: float) -> None:
        """A batch was being submitted from ``start`` to ``submitted`` and computed at ``end``.

        Those of two contexts overlap; they are told in the order in which they were submitted.
        """
        before = start if self.busy_until is None else self.busy_until
        self.idle_s += max(0.0, start - before)
        self.alone_s += max(0.0, submitted - max(start, before))
        self.busy_until = max(before, end)


class Decoder:
    """Submits batches with their cache operations around them, in the order the device needs them.

    Args:
        backend: a context.
        watched: note when the device is done with a batch, even if nobody waits for it then: a thread waits.

    Attributes:
        stats: counts of the calls, ``alone`` left out; decoders that share a device may share it.
        checks: counts of the calls of ``alone``.
    """

    def __init__(self, backend: Backend, *, watched: bool = False) -> None:
        self.backend = backend
        self.stats, self.checks = DecodeStats(), DecodeStats()
        self._submitted = (0.0, 0.0)
        self._watch = ThreadPoolExecutor(1, "watch") if watched else None
        self._done: Future[float] | None = None

    def prepare(self, batch: Batch) -> None:
        """Make the batch's copies (bookkeeping on the host: it may run while the device computes) and check them.

        Raises:
            LostPrefixError: a sequence that the batch extends is not what it should be.
        """
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

    def submit(self, batch: Batch) -> None:
        """Start a prepared batch and make its cuts. On a GPU this returns before the batch is computed."""
        started = time.perf_counter()
        self.backend.submit(batch)
        self._submitted = (started, time.perf_counter())
        if self._watch is not None:
            self._done = self._watch.submit(self._wait)
        self.stats.submit_s += self._submitted[1] - started
        self.stats.tokens += len(batch.tokens)
        self.stats.calls += 1
        for cut in batch.cuts:
            self.backend.cut(cut.seq, cut.start)

    def rows(self, n: int) -> npt.NDArray[np.float32]:
        """Wait for the last batch and return its logit rows, valid until the next ``submit``."""
        started = time.perf_counter()
        done = self._wait() if self._done is None else self._done.result()
        rows = self.backend.logits(n)
        self.stats.wait_s += time.perf_counter() - started
        self.stats.busy(*self._submitted, done)
        self.stats.rows += n
        return rows

    def rest(self) -> None:
        """Wait until no thread waits for the device any more: the context may be freed then."""
        if self._done is not None:
            wait([self._done])

    def _wait(self) -> float:
        """Wait for the device; when it was done."""
        self.backend.logits(0)
        return time.perf_counter()

    def state(self, seq: int) -> bytes:
        """What ``seq`` holds, as bytes; waits for the device."""
        self.backend.logits(0)
        return self.backend.state(seq)

    def restore(self, restored: Restored, payload: bytes) -> bool:
        """Carry out ``restored``; False if llama.cpp refuses the payload. Waits for the device."""
        self.backend.logits(0)
        for seq in restored.cut:
            self.backend.cut(seq, 0)
        if not self.backend.set_state(restored.holder, payload):
            return False
        self.backend.copy(restored.holder, restored.pin, restored.n)
        return True

    def alone(self, tokens: Tokens, n_chunk: int) -> npt.NDArray[np.float32]:
        """The logits after ``tokens``, computed in the canonical shape.

        One sequence in an empty cache, ``n_chunk`` tokens at a time from position 0, one output row: a function of
        the tokens alone, whatever else the run contains.

        Args:
            tokens: int32 ``[n]``.
            n_chunk: tokens per decode call.

        Returns:
            float32 ``[n_vocab]``, a copy.
        """
        (row,) = self.each_alone([tokens], n_chunk)
        return row

    def each_alone(self, paths: Sequence[Tokens], n_chunk: int) -> Iterator[npt.NDArray[np.float32]]:
        """What ``alone`` gives for each of ``paths``, in their order.

        Whole chunks that a path shares with the one before stay in the cache: the same cells hold the same then as if
        they had been computed anew. So sort the paths.
        """
        own = Decoder(self.backend)
        own.stats = self.checks
        before = np.empty(0, dtype=np.int32)
        for tokens in paths:
            shared = min(common_prefix(before, tokens), len(tokens) - 1) // n_chunk * n_chunk
            self.backend.cut(0, shared)
            # Behind a sliding window's edge cells may have been used again by what followed.
            if not shared or self.backend.span(0) != (0, shared - 1):
                self.backend.clear()
                shared = 0
            for start in range(shared, len(tokens), n_chunk):
                builder = BatchBuilder()
                part = tokens[start : start + n_chunk]
                builder.add(part, start, 0)
                if start + n_chunk >= len(tokens):
                    builder.flag(np.array([len(part) - 1]))
                batch = builder.build()
                own.prepare(batch)
                own.submit(batch)
            row: npt.NDArray[np.float32] = own.rows(1)[0].copy()
            before = tokens
            yield row
        self.stats.busy_until = None  # what the device did meanwhile is not counted
        self.backend.clear()
