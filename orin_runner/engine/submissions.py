"""Decode calls on a thread beside the one that packs batches and reads rows.

llama.cpp prepares a batch inside ``llama_decode``: its checks, its graph, the attention mask, the launches. With layers
over four GPUs that was 27 ms of one core, which would else be those of the thread that has to feed all contexts.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait

from orin_runner.batching.batch import Batch
from orin_runner.engine.backend import Backend


class Submissions:
    """The decode calls of one context, one at a time.

    Args:
        backend: the context.
        own_thread: make the calls on a thread of its own. It also waits for the device, so that the moment at which a
            batch was done is known even if nobody asks for it then.
    """

    def __init__(self, backend: Backend, *, own_thread: bool) -> None:
        self._backend = backend
        self._thread = ThreadPoolExecutor(1, "submit") if own_thread else None
        self._submitted = _ended((0.0, 0.0))
        self._done: Future[float] | None = None

    def begin(self, batch: Batch) -> None:
        """Submit ``batch`` and make its cuts; the rows of the one before must have been read."""
        if self._thread is not None:
            self._submitted = self._thread.submit(self._submit, batch)
            self._done = self._thread.submit(self._wait)
        else:
            self._submitted = _ended(self._submit(batch))

    def submitted(self) -> tuple[float, float]:
        """Wait until the last batch is with the device: the backend's bookkeeping may be used from then on.

        Returns:
            The ``time.perf_counter`` at which its submission began and ended.

        Raises:
            DecodeError: the backend refused it.
        """
        return self._submitted.result()

    def done(self) -> float:
        """Wait until the device has computed the last batch; the ``time.perf_counter`` at which it was done."""
        return self._wait() if self._done is None else self._done.result()

    def rest(self) -> None:
        """Wait until no thread uses the context any more, and forget the last batch: the context may be freed then."""
        wait([self._submitted])
        if self._done is not None:
            wait([self._done])
        self._submitted, self._done = _ended((0.0, 0.0)), None

    def _submit(self, batch: Batch) -> tuple[float, float]:
        began = time.perf_counter()
        self._backend.submit(batch)
        ended = time.perf_counter()
        for cut in batch.cuts:
            self._backend.cut(cut.seq, cut.start)
        return began, ended

    def _wait(self) -> float:
        self._backend.synchronize()
        return time.perf_counter()


def _ended(submission: tuple[float, float]) -> Future[tuple[float, float]]:
    """A submission that nobody has to wait for."""
    found: Future[tuple[float, float]] = Future()
    found.set_result(submission)
    return found
