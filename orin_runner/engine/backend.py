"""What the engine needs of a context of llama.cpp, and what each call may be relied on for.

``orin_runner.model.llama.Context`` is one. Tests put a fake in its place that keeps llama.cpp's rules.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from orin_runner.batching.batch import Batch


class Backend(Protocol):
    """A KV cache with sequences, and one decode at a time.

    ``submit`` and the cuts behind it may come from a thread of its own. Calls on one context never overlap, but for
    ``synchronize``; calls on different contexts do.

    A call raises ``DecodeError`` where the device or its memory fails; nothing can be relied on then.

    Attributes:
        n_vocab: logits of a row.
        n_swa: sliding window in tokens, 0 for none.
    """

    n_vocab: int
    n_swa: int

    def clear(self) -> None:
        """Forget every sequence. Bookkeeping on the host: it may run while the device computes."""
        ...

    def copy(self, src: int, dst: int, end: int) -> None:
        """Put ``dst``, which must be empty, on the cells of ``src``'s positions 0 to ``end - 1``.

        Bookkeeping on the host: it may run while the device computes.
        """
        ...

    def cut(self, seq: int, start: int) -> None:
        """Remove the positions of ``seq`` from ``start`` on. A cell whose last sequence goes is free.

        Bookkeeping on the host: it may run while the device computes, right behind ``submit`` too.
        """
        ...

    def span(self, seq: int) -> tuple[int, int]:
        """Smallest and largest position of ``seq`` in the cache, (-1, -1) if it has none. Changes nothing.

        llama.cpp reuses cells that lie behind a sliding window, so the smallest may be more than 0.
        """
        ...

    def submit(self, batch: Batch) -> None:
        """Start decoding ``batch``, whose copies have been made.

        On a GPU this returns before the batch is computed, on a CPU when it is. The logits of the batch before must
        have been read: their buffer is used again.
        """
        ...

    def synchronize(self) -> None:
        """Wait until the device has computed what was submitted. Any thread may call it."""
        ...

    def logits(self, n: int) -> npt.NDArray[np.float32]:
        """Wait for the last batch and return its ``n`` logit rows, float32 ``[n, n_vocab]``, in token order.

        The array is the backend's own buffer, valid until the next ``submit``.
        """
        ...

    def state(self, seq: int) -> bytes:
        """What ``seq`` holds; with a sliding window only what lies within it of the end. The device must be idle."""
        ...

    def set_state(self, seq: int, payload: bytes) -> bool:
        """Put what ``state`` returned into ``seq``, which must be empty; False if it is refused."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes of ``token`` in a text, leading space included; the name of a special token."""
        ...
