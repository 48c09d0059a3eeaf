"""Which rows of logits are wanted of a set of token paths, and how that work is divided over several contexts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from orin_runner.batching.tree import TokenTree

Int64 = npt.NDArray[np.int64]

MIN_BASE = 256
"""Shared prefixes of fewer tokens are not worth a file: computing them takes less than reading 200 KiB a token."""


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring paths of a tree, as a tree of their own: what one context computes.

    Attributes:
        tree: the paths.
        outputs: stream indices in ``tree`` of the tokens after which a row is wanted, ascending.
        bases: as ``Packer`` takes them.
        first_path, first_row: what path 0 and row 0 are in the whole.
    """

    tree: TokenTree
    outputs: Int64
    bases: dict[int, int]
    first_path: int
    first_row: int


class WantedRows:
    """A prefix tree and its wanted rows, each once.

    Args:
        tree: the prefix tree.
        path: int64 ``[k]``, index into the paths that the tree was made of.
        position: int64 ``[k]``, the row after this position of the path is wanted.

    Attributes:
        tree: as given.
        outputs: int64 ``[n]``, stream indices of the tokens after which a row is wanted, ascending.
        row_of: int64 ``[k]``, the index in ``outputs`` of each of what was asked for.
    """

    __slots__ = ("outputs", "row_of", "tree")

    def __init__(self, tree: TokenTree, path: Int64, position: Int64) -> None:
        self.tree = tree
        in_tree = tree.index[path]
        by_path = np.argsort(in_tree, kind="stable")
        where = np.empty(len(path), dtype=np.int64)
        where[by_path] = tree.locate(in_tree[by_path], position[by_path])
        self.outputs, self.row_of = np.unique(where, return_inverse=True)

    def divide(self, n_parts: int, *, window: int, with_bases: bool) -> list[Part]:
        """At most ``n_parts`` parts of about equal work, in the order of the tree.

        Args:
            n_parts: contexts that there are.
            window: sliding window in tokens, 0 for none.
            with_bases: find out where long prefixes begin to be shared.
        """
        bounds = [0, *self.tree.cuts(n_parts), len(self.tree.paths)]
        bases = self.bases(window) if with_bases else {}
        parts = []
        for first, end in pairwise(bounds):
            tree, before = self.tree.subtree(first, end)
            low, high = np.searchsorted(self.outputs, self.tree.starts[[first, end]])
            own = {path - first: n for path, n in bases.items() if first <= path < end}
            parts.append(Part(tree, self.outputs[low:high] - before, own, first, int(low)))
        return parts

    def bases(self, window: int) -> dict[int, int]:
        """Where a long prefix begins to be shared: path to length, as ``Packer`` takes them.

        A base ends before the first row that is wanted, so that what is restored need not be computed. It ends within
        the sliding ``window`` (in tokens, 0 for none) of its first token: a longer state would lack the beginning,
        which the paths after these may share.
        """
        lcp, starts = self.tree.lcp, self.tree.starts
        found: dict[int, int] = {}
        begins = np.flatnonzero(lcp < MIN_BASE)
        for first, end in zip(begins.tolist(), [*begins.tolist()[1:], len(lcp)], strict=True):
            if end - first < 2:
                continue
            base = min(int(lcp[first + 1 : end].min()), len(self.tree.paths[first]) - 1)
            output = int(np.searchsorted(self.outputs, starts[first]))
            if output < len(self.outputs):
                base = min(base, int(self.outputs[output] - starts[first] + lcp[first]))
            if window:
                base = min(base, window - 1)
            if base >= MIN_BASE:
                found[first] = base
        return found
