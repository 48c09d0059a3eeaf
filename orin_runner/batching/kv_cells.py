"""A mirror of the KV cache: which sequence holds which computed tokens, and how many cells that takes.

llama.cpp keeps one cell per computed token and a set of sequence ids on it; copying a prefix only adds an id, and a
cell is free again when its last id is gone (``llama_kv_cache::seq_cp`` and ``seq_rm`` with a unified cache). Here a
cell is named by a **handle** (the token's stream index, or a fresh number for generated tokens), a sequence is a list
of handle ranges, and ``refs`` counts the ids on each handle. The packer reads the number of free cells from it.
"""

from __future__ import annotations

import numpy as np


class CellsError(AssertionError):
    """The bookkeeping was asked for something that cannot be: always a bug of ours."""


class KVCells:
    """Reference counts of computed tokens over sequences.

    Args:
        n_cells: cells of the cache.
        n_seq: sequence ids of the cache (at most 256 in llama.cpp).
        n_handles: handles reserved for the stream; ``new_handles`` hands out numbers from there on.
    """

    __slots__ = ("_free_ids", "_next_handle", "_pieces", "n_cells", "n_seq", "refs", "used")

    def __init__(self, n_cells: int, n_seq: int, n_handles: int) -> None:
        self.n_cells = n_cells
        self.n_seq = n_seq
        self.used = 0
        self.refs = np.zeros(n_handles, dtype=np.int16)
        self._next_handle = n_handles
        self._free_ids = list(range(n_seq - 1, -1, -1))
        self._pieces: dict[int, list[tuple[int, int]]] = {}

    @property
    def free(self) -> int:
        """Cells that hold nothing."""
        return self.n_cells - self.used

    @property
    def free_ids(self) -> int:
        """Sequence ids not in use."""
        return len(self._free_ids)

    def new_seq(self) -> int:
        """Take an unused sequence id."""
        if not self._free_ids:
            raise CellsError("no sequence id is free")
        seq = self._free_ids.pop()
        self._pieces[seq] = []
        return seq

    def new_handles(self, n: int) -> int:
        """Reserve ``n`` consecutive handles for generated tokens and return the first."""
        first = self._next_handle
        self._next_handle += n
        if self._next_handle > len(self.refs):
            grown = np.zeros(max(2 * len(self.refs), self._next_handle), dtype=np.int16)
            grown[: len(self.refs)] = self.refs
            self.refs = grown
        return first

    def length(self, seq: int) -> int:
        """Tokens that ``seq`` holds: its next position."""
        return sum(end - start for start, end in self._pieces[seq])

    def extend(self, seq: int, start: int, end: int) -> None:
        """Append the cells ``start`` to ``end - 1`` to ``seq``, whether they are new or shared."""
        refs = self.refs[start:end]
        self.used += int(np.count_nonzero(refs == 0))
        refs += 1
        pieces = self._pieces[seq]
        if pieces and pieces[-1][1] == start:
            pieces[-1] = (pieces[-1][0], end)
        else:
            pieces.append((start, end))

    def copy(self, src: int, dst: int, end: int) -> None:
        """Give ``dst``, which must be empty, the first ``end`` positions of ``src``."""
        if self._pieces[dst]:
            raise CellsError(f"sequence {dst} is not empty")
        left = end
        for start, stop in self._pieces[src]:
            if left <= 0:
                break
            n = min(stop - start, left)
            self.extend(dst, start, start + n)
            left -= n
        if left > 0:
            raise CellsError(f"sequence {src} holds {end - left} tokens, not {end}")

    def cut(self, seq: int, position: int) -> None:
        """Drop every token of ``seq`` from ``position`` on."""
        kept: list[tuple[int, int]] = []
        for start, end in self._pieces[seq]:
            keep = min(max(position, 0), end - start)
            position -= end - start
            if keep:
                kept.append((start, start + keep))
            if keep < end - start:
                refs = self.refs[start + keep : end]
                refs -= 1
                self.used -= int(np.count_nonzero(refs == 0))
        self._pieces[seq] = kept

    def release(self, seq: int) -> None:
        """Drop ``seq`` and make its id available."""
        self.cut(seq, 0)
        del self._pieces[seq]
        self._free_ids.append(seq)

    def check_integrity(self) -> None:
        """Recount everything from the sequences.

        Raises:
            CellsError: the counts disagree, or more cells are used than there are.
        """
        refs = np.zeros_like(self.refs)
        for pieces in self._pieces.values():
            for start, end in pieces:
                refs[start:end] += 1
        if not np.array_equal(refs, self.refs):
            raise CellsError("reference counts differ from the sequences' contents")
        if int(np.count_nonzero(refs)) != self.used:
            raise CellsError(f"{self.used} cells counted, {np.count_nonzero(refs)} in use")
        if self.used > self.n_cells:
            raise CellsError(f"{self.used} cells in use, {self.n_cells} exist")
        if sorted([*self._free_ids, *self._pieces]) != list(range(self.n_seq)):
            raise CellsError("a sequence id is lost or free twice")
