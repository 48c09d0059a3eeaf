"""A cache that places cells as llama.cpp does and computes nothing but the masks of its ubatches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from orin_runner.batching.batch import Batch

Mask = npt.NDArray[np.bool_]
"""Whether a query attends to a cell, bool ``[queries, n_kv]``."""
KV_STEP = 256
"""llama.cpp looks at a whole number of so many cells (``llama_kv_cache::get_n_kv``)."""


@dataclass(slots=True)
class MaskedCache:
    """A context's cells as llama.cpp keeps them, and the mask of each ubatch (``engine.backend.Backend``).

    Cells whose sequence has a window behind them are used again (``find_slot``), and what that sequence holds before
    them is purged (``apply_ubatch``). Rows of logits are empty.

    Args:
        n_cells, n_seq, n_ubatch: sizes.
        n_swa: sliding window, 0 for none.
        on_mask: takes the mask of each ubatch.
        order: takes a batch and gives it with its tokens in the order in which they are to be computed.

    Attributes:
        position: int64 ``[n_cells]``, -1 where a cell is free.
        held: bool ``[n_seq, n_cells]``, the sequences on each cell.
    """

    n_cells: int
    n_seq: int
    n_ubatch: int
    n_swa: int
    on_mask: Callable[[Mask], None]
    order: Callable[[Batch], Batch] = field(default=lambda batch: batch)
    n_vocab: int = 0
    position: npt.NDArray[np.int64] = field(init=False)
    held: Mask = field(init=False)

    def __post_init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.position = np.full(self.n_cells, -1)
        self.held = np.zeros((self.n_seq, self.n_cells), dtype=bool)

    def copy(self, src: int, dst: int, end: int) -> None:
        self.held[dst] |= self.held[src] & (self.position < end)

    def cut(self, seq: int, start: int) -> None:
        self._drop(seq, self.position >= start)

    def span(self, seq: int) -> tuple[int, int]:
        found = self.position[self.held[seq]]
        return (int(found.min()), int(found.max())) if len(found) else (-1, -1)

    def submit(self, batch: Batch) -> None:
        batch = self.order(batch)
        n, starts = len(batch.tokens), batch.seq_starts
        for first in range(0, n, self.n_ubatch):
            end = min(first + self.n_ubatch, n)
            cells = self._slot(end - first)
            self._purge(cells)
            self.position[cells] = batch.positions[first:end]
            of_pair = np.repeat(cells, np.diff(starts[first : end + 1]))
            self.held[batch.seq_ids[starts[first] : starts[end]], of_pair] = True
            self.on_mask(self._mask(batch.seq_ids[starts[first:end]], batch.positions[first:end]))

    def synchronize(self) -> None:
        pass

    def logits(self, n: int) -> npt.NDArray[np.float32]:
        return np.empty((n, 0), dtype=np.float32)

    def state(self, seq: int) -> bytes:
        raise NotImplementedError

    def set_state(self, seq: int, payload: bytes) -> bool:
        raise NotImplementedError

    def piece(self, token: int) -> bytes:
        raise NotImplementedError

    def _slot(self, n: int) -> npt.NDArray[np.int64]:
        """The first ``n`` cells that may be written.

        llama.cpp looks from its head on. The head never has a free cell before it: it is where the last slot ended, or
        the lowest cell that became free since.
        """
        usable = self.position < 0
        if self.n_swa and int(self.position.max()) + 1 >= self.n_swa:
            single = self.held.sum(axis=0) == 1
            last = np.where(self.held, self.position, -1).max(axis=1)
            usable |= single & (last[self.held.argmax(axis=0)] + 1 - self.position >= self.n_swa)
        found = np.flatnonzero(usable)[:n]
        assert len(found) == n, "no slot: llama_decode would return 1"
        return found

    def _purge(self, cells: npt.NDArray[np.int64]) -> None:
        """Free ``cells``, and what their sequences hold up to them."""
        taken = cells[self.position[cells] >= 0]
        owners = self.held[:, taken].argmax(axis=0)
        for seq in np.unique(owners).tolist():
            self._drop(seq, self.position <= int(self.position[taken[owners == seq]].max()))

    def _drop(self, seq: int, where: Mask) -> None:
        gone = self.held[seq] & where
        self.held[seq, gone] = False
        gone[gone] = ~self.held[:, gone].any(axis=0)
        self.position[gone] = -1

    def _mask(self, seqs: npt.NDArray[np.int32], positions: npt.NDArray[np.int32]) -> Mask:
        """What each query sees: cells of its first sequence, not behind it and within the window."""
        used = int(np.flatnonzero(self.position >= 0)[-1]) + 1
        n_kv = min(self.n_cells, -(-used // KV_STEP) * KV_STEP)
        cells, queries = self.position[:n_kv].astype(np.int32), positions[:, None]
        seen = self.held[seqs, :n_kv]
        seen &= cells <= queries
        if self.n_swa:
            seen &= cells > queries - self.n_swa
        return seen
