"""Cuts the stream of a token tree into decode batches.

Because the stream is a depth-first walk, what any batch needs from earlier ones is a single path: the tokens between
the root and the point where the batch goes on. That path is the **trunk**. Everything else is freed as soon as its
batch is done, so computed tokens equal unique tokens under every budget, and every batch but the last can be full.

Inside a batch each path has its own sequence id. A path's prefix is either in the trunk, whose cells it is given by a
copy of tags, or computed in the same batch by an earlier path, whose tokens then carry its id too. Ids on tokens have
a price (llama.cpp checks a batch at about 0.45 us per token and id), so a batch ends early where the next path would
share more in-batch tokens than that is worth; they become trunk and cost nothing from there on.

The trunk is held by two ids, **holder and pin**: llama.cpp may reuse a cell with a single id once it lies behind that
sequence's sliding window (``llama_kv_cache::find_slot``), silently. It never takes a cell that carries two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orin_runner.batching.batch import BatchBuilder, Copy, Cut
from orin_runner.batching.kv_cells import KVCells
from orin_runner.batching.tree import TokenTree
from orin_runner.requests import Tokens

MAX_SHARED_PAIRS = 16384
"""(token, id) pairs of in-batch sharing worth paying for a full batch: 7 ms of batch checking, about what the fixed
cost of one more decode call amounts to."""

AWAY_COST = 0.1
"""What each token that a cut of the work is away from where it should be costs, in tokens that are computed again."""

IDS_BESIDE_PATHS = 4
"""Sequence ids a batch needs besides one per path: holder and pin of the trunk before it and of the one after it."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a decode call may use.

    Attributes:
        n_cells: KV cells (``n_ctx`` of a unified cache).
        n_batch: tokens per decode call.
        n_seq: sequence ids, at most 256; at least one more than ``IDS_BESIDE_PATHS``.
        n_outputs: logit rows per decode call.
    """

    n_cells: int
    n_batch: int
    n_seq: int
    n_outputs: int

    def __post_init__(self) -> None:
        if min(self.n_cells, self.n_batch, self.n_outputs) < 1 or self.n_seq <= IDS_BESIDE_PATHS:
            raise ValueError(f"a budget that nothing fits into: {self}")


@dataclass(frozen=True, slots=True)
class _Piece:
    """Tokens of the current path that this batch computes: path positions, batch offset, cell handle of the first."""

    start: int
    end: int
    offset: int
    handle: int


Retained = tuple[tuple[int, int], ...]
"""(path, sequence id) of finished paths whose sequences stay alive."""


@dataclass(frozen=True, slots=True)
class Restored:
    """How to restore a base: drop the sequences ``cut``, put the state into ``holder``, give ``pin`` all of it.

    Attributes:
        n: tokens of the base.
    """

    cut: tuple[int, ...]
    holder: int
    pin: int
    n: int


class Packer:
    """Walks a tree once, filling batches.

    Args:
        tree: the paths to compute.
        outputs: stream indices of the tokens whose logits are wanted, ascending and distinct.
        budget: limits of one decode call.
        cells: the cache's bookkeeping; other sequences may live in it.
        retain: bool per path: keep the path's sequence alive when it is finished (for generation).
        bases: path to length: the paths from this one on share so many leading tokens, and the batch in which they are
            complete ends there, so that their state can be saved from ``trunk``, or put there with ``restore``.
    """

    def __init__(
        self,
        tree: TokenTree,
        outputs: npt.NDArray[np.int64],
        budget: Budget,
        cells: KVCells,
        retain: npt.NDArray[np.bool_] | None = None,
        bases: Mapping[int, int] | None = None,
    ) -> None:
        self._tree = tree
        self._outputs = outputs
        self._budget = budget
        self._cells = cells
        self._retain = retain
        self._end = len(tree.paths)  # the paths from there on are left to others
        self._path = 0  # the path being computed ...
        self._position = 0  # ... and the position in it that comes next
        self._trunk: tuple[int, int] | None = None  # holder and pin
        self._bases = bases or {}

    @property
    def done(self) -> bool:
        """Whether every token of the tree has been put into a batch, but for what is left to others."""
        return self._path == self._end

    @property
    def end(self) -> int:
        """The first of the paths that are left to others; their number where none are."""
        return self._end

    @property
    def position(self) -> int:
        """Stream index of the next token."""
        if self.done:
            return int(self._tree.starts[self._end])
        return int(self._tree.starts[self._path] + self._position - self._tree.lcp[self._path])

    @property
    def trunk(self) -> int | None:
        """The sequence that holds what the next batch goes on from."""
        return None if self._trunk is None else self._trunk[0]

    @property
    def base_ahead(self) -> Tokens | None:
        """The base that the next batch begins, None where it begins none."""
        base = self._bases.get(self._path)
        if base is None or self._position != self._tree.lcp[self._path]:
            return None
        return self._tree.paths[self._path][:base]

    @property
    def base_complete(self) -> Tokens | None:
        """The base that the trunk has come to hold, and nothing beyond it."""
        base = self._bases.get(self._path)
        return self._tree.paths[self._path][:base] if base is not None and self._position == base else None

    def restore(self) -> Restored:
        """Take the base ahead as computed. The cells are updated as if the result had been carried out."""
        base = self._bases[self._path]
        cut = self._trunk or ()
        for seq in cut:
            self._cells.release(seq)
        holder, pin = self._cells.new_seq(), self._cells.new_seq()
        # New cells: those of a shared beginning that the old trunk held are among the restored ones, too.
        handle = self._cells.new_handles(base)
        self._cells.extend(holder, handle, handle + base)
        self._cells.copy(holder, pin, base)
        self._trunk, self._position = (holder, pin), base
        return Restored(cut, holder, pin, base)

    def fill(self, builder: BatchBuilder, max_tokens: int, max_outputs: int, max_paths: int) -> Retained | None:
        """Put as many tokens as fit into ``builder``.

        The cells are updated as if the batch had been decoded and its cuts made.

        Args:
            builder: the batch; it may already hold tokens of other sequences.
            max_tokens: tokens to add at the most; the free cells bound them as well.
            max_outputs: logit rows to add at the most.
            max_paths: paths to touch at the most; the free sequence ids bound them as well.

        Returns:
            The finished paths whose sequences were retained as asked; None if nothing is left or nothing fits.
        """
        tree, cells = self._tree, self._cells
        first = self.position
        next_output = int(np.searchsorted(self._outputs, first))
        room = min(max_tokens, cells.free)
        base = self._bases.get(self._path, 0)
        if self._position < base:
            room = min(room, base - self._position)
        if next_output + max_outputs < len(self._outputs):
            room = min(room, int(self._outputs[next_output + max_outputs]) - first)
        max_paths = min(max_paths, cells.free_ids - IDS_BESIDE_PATHS // 2)
        if self.done or room < 1 or max_paths < 1:
            return None

        offset = builder.n_tokens
        path, position = self._path, self._position
        trunk = position  # how much of the current path the trunk holds
        pieces: list[_Piece] = []  # what this batch computes of the current path
        sequences: list[tuple[int, int]] = []  # (path, sequence id)
        shared_pairs = 0
        while room and path < self._end and len(sequences) < max_paths:
            if sequences:
                if path in self._bases:
                    break
                branch = int(tree.lcp[path])
                trunk_left = min(trunk, branch)
                shared_pairs += branch - trunk_left
                if shared_pairs > MAX_SHARED_PAIRS:
                    break
                position, trunk = branch, trunk_left
                pieces = _trim(pieces, position)
            seq = self._join(builder, trunk, pieces)
            tokens = tree.paths[path][position : position + room]
            handle = int(tree.starts[path] + position - tree.lcp[path])
            end = position + len(tokens)
            pieces = [*pieces, _Piece(position, end, builder.add(tokens, position, seq), handle)]
            cells.extend(seq, handle, handle + len(tokens))
            sequences.append((path, seq))
            room -= len(tokens)
            position = end
            if position < len(tree.paths[path]):
                break
            path += 1

        last = sequences[-1][0]
        if position == len(tree.paths[last]):
            self._path = last + 1
            self._position = 0 if self.done else int(tree.lcp[last + 1])
        else:
            self._path, self._position = last, position
        retained = self._hand_on(builder, sequences, min(trunk, self._position), _trim(pieces, self._position))
        end_output = int(np.searchsorted(self._outputs, self.position))
        builder.flag(self._outputs[next_output:end_output] - first + offset)
        return retained

    def give_back(self, share: float, barred: npt.NDArray[np.bool_] | None = None) -> range:
        """Leave the last paths to others: whole paths that no batch has begun.

        Args:
            share: of the tokens that no batch has; about so many are left.
            barred: bool per path, those that what is left may not begin with.

        Returns:
            The paths; none where less than two batches are to do, or no path will do.
        """
        tree, first, end = self._tree, self._path + 1, self._end
        left = int(tree.starts[end]) - self.position
        if left < 2 * self._budget.n_batch or first >= end:
            return range(end, end)
        away = np.abs(tree.starts[end] - tree.starts[first:end] - share * left)
        # Others compute once more what their first path shares with the one before it.
        cost = tree.lcp[first:end] + AWAY_COST * away
        if barred is not None:
            cost = np.where(barred[first:end], np.inf, cost)
        best = int(cost.argmin())
        if np.isfinite(cost[best]):
            self._end = first + best
        return range(self._end, end)

    def _join(self, builder: BatchBuilder, trunk: int, pieces: list[_Piece]) -> int:
        """A new sequence holding the first ``trunk`` tokens of the trunk and this batch's ``pieces`` after them."""
        seq = self._cells.new_seq()
        if trunk:
            assert self._trunk is not None
            self._cells.copy(self._trunk[0], seq, trunk)
            builder.copies.append(Copy(self._trunk[0], seq, trunk))
        for piece in pieces:
            n = piece.end - piece.start
            builder.share(piece.offset, n, piece.start, seq)
            self._cells.extend(seq, piece.handle, piece.handle + n)
        return seq

    def _hand_on(
        self, builder: BatchBuilder, sequences: list[tuple[int, int]], trunk: int, pieces: list[_Piece]
    ) -> Retained:
        """Keep the part of the last path that the next batch goes on from; free the rest.

        Args:
            builder: the batch.
            sequences: (path, sequence id) of the batch's paths, in order.
            trunk: how much of the part to keep stands in the old trunk.
            pieces: the tokens of the part to keep that this batch computes.

        """
        keep = self._position
        retained = [
            (path, seq)
            for path, seq in sequences
            if path < self._path and self._retain is not None and self._retain[path]
        ]
        staying = {seq for _, seq in retained}
        old_trunk = self._trunk
        new_trunk = None
        if keep:
            last = sequences[-1][1]
            # A sequence with tokens of its own beyond the trunk cannot hold it: when llama.cpp reuses one of those
            # cells it takes the sequence off every earlier position too (``apply_ubatch``).
            alone = last not in staying and self._cells.length(last) == keep
            new_trunk = (last if alone else self._join(builder, trunk, pieces), self._join(builder, trunk, pieces))
            staying.update(new_trunk)
        for seq in [seq for _, seq in sequences if seq not in staying] + list(old_trunk or ()):
            self._cells.release(seq)
            builder.cuts.append(Cut(seq, 0))
        self._trunk = new_trunk
        return tuple(retained)


def _trim(pieces: list[_Piece], position: int) -> list[_Piece]:
    """The parts of ``pieces`` before ``position``."""
    return [
        _Piece(piece.start, min(piece.end, position), piece.offset, piece.handle)
        for piece in pieces
        if piece.start < position
    ]
