"""Which rows of logits are wanted of a set of token paths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from orin_runner.batching.tree import TokenTree
from orin_runner.engine.prompt_cache import MIN_TOKENS
from orin_runner.requests import Tokens

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring paths of a tree, as a tree of their own.

    Attributes:
        tree: the paths.
        outputs: stream indices in ``tree`` of the tokens after which a row is wanted, ascending.
        bases: as ``Planner`` takes them.
        first_path, first_row: what path 0 and row 0 are in the whole.
    """

    tree: TokenTree
    outputs: Int64
    bases: dict[int, int]
    first_path: int
    first_row: int


class WantedRows:
    """The prefix tree of ``paths`` and its wanted rows, each once.

    Args:
        paths: int32 token paths; duplicates allowed.
        path: int64 ``[k]``, index into ``paths``.
        position: int64 ``[k]``, the row after this position of the path is wanted.

    Attributes:
        tree: the prefix tree.
        outputs: int64 ``[n]``, stream indices of the tokens after which a row is wanted, ascending.
        row_of: int64 ``[k]``, the index in ``outputs`` of each of what was asked for.
    """

    __slots__ = ("outputs", "row_of", "tree")

    def __init__(self, paths: Sequence[Tokens], path: Int64, position: Int64) -> None:
        self.tree = TokenTree(paths)
        in_tree = self.tree.index[path]
        by_path = np.argsort(in_tree, kind="stable")
        where = np.empty(len(path), dtype=np.int64)
        where[by_path] = self.tree.locate(in_tree[by_path], position[by_path])
        self.outputs, self.row_of = np.unique(where, return_inverse=True)

    def parts(self, middle: int, *, window: int, with_bases: bool) -> Iterator[Part]:
        """The paths before ``middle`` and those from it on; all of them where it is 0.

        Args:
            middle: a path of the tree.
            window: sliding window, 0 for none.
            with_bases: find out where long prefixes begin to be shared.
        """
        bounds = [0, middle, len(self.tree.paths)] if middle else [0, len(self.tree.paths)]
        bases = self.bases(window) if with_bases else {}
        for first, end in pairwise(bounds):
            tree, before = self.tree.part(first, end)
            low, high = np.searchsorted(self.outputs, self.tree.starts[[first, end]])
            own = {path - first: n for path, n in bases.items() if first <= path < end}
            yield Part(tree, self.outputs[low:high] - before, own, first, int(low))

    def bases(self, window: int) -> dict[int, int]:
        """Where a long prefix begins to be shared: path to length, as ``Planner`` takes them.

        A base ends before the first row that is wanted, so that what is restored need not be computed, and within the
        sliding ``window`` (0 for none) of its first token: a longer state would lack the beginning, which the paths
        after these may share.
        """
        lcp, starts = self.tree.lcp, self.tree.starts
        found: dict[int, int] = {}
        begins = np.flatnonzero(lcp < MIN_TOKENS)
        for first, end in zip(begins.tolist(), [*begins.tolist()[1:], len(lcp)], strict=True):
            if end - first < 2:
                continue
            base = min(int(lcp[first + 1 : end].min()), len(self.tree.paths[first]) - 1)
            output = int(np.searchsorted(self.outputs, starts[first]))
            if output < len(self.outputs):
                base = min(base, int(self.outputs[output] - starts[first] + lcp[first]))
            if window:
                base = min(base, window - 1)
            if base >= MIN_TOKENS:
                found[first] = base
        return found
