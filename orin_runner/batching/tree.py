"""The prefix tree over every token path of a run, stored as a sorted list of paths.

Sorting the paths puts each one next to the path it shares most with, so a radix tree needs no nodes: path ``i`` starts
where it leaves path ``i - 1`` (``lcp[i]``) and everything before that is already computed. Walking the list is a
depth-first walk of the tree, and the new tokens of each path, one after another, are the **stream**: every unique
token exactly once, parents before children. A token is named by its index in the stream.

This module knows nothing of batches, cells or models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orin_runner.requests import Tokens

MOST_AGAIN = 0.002
"""Share of a tree that may be computed twice so that two contexts can work on it."""
IMBALANCE_COST = 0.2
"""What each token that a part is away from half of the tree costs, in tokens: twice as many are computed with nothing
beside them, which on a GPU takes some tenth longer."""


class TokenTree:
    """Unique token paths in depth-first order.

    Args:
        paths: int32 arrays, each of at least one token. Duplicates are allowed and stored once.

    Attributes:
        paths: the distinct paths, sorted; a path that is a prefix of another comes before it.
        index: int64 ``[len(input)]``, the position in ``paths`` of each input path.
        lcp: int64 ``[n]``, how many leading tokens path ``i`` shares with path ``i - 1``; 0 for the first.
        starts: int64 ``[n + 1]``, stream index of each path's first new token; the last entry is ``n_unique``.
    """

    __slots__ = ("index", "lcp", "paths", "starts")

    def __init__(self, paths: Sequence[Tokens]) -> None:
        if any(len(path) == 0 for path in paths):
            raise ValueError("an empty token path cannot be computed")
        # Big-endian bytes compare like the token ids themselves, and bytes comparison is memcmp.
        keys = [path.astype(">u4").tobytes() for path in paths]
        order = sorted(range(len(paths)), key=keys.__getitem__)
        self.paths: list[Tokens] = []
        self.index = np.empty(len(paths), dtype=np.int64)
        lcp: list[int] = []
        previous: Tokens | None = None
        for i in order:
            path = paths[i]
            shared = 0 if previous is None else common_prefix(previous, path)
            if previous is None or shared < max(len(previous), len(path)):
                self.paths.append(path)
                lcp.append(shared)
                previous = path
            self.index[i] = len(self.paths) - 1
        self.lcp = np.array(lcp, dtype=np.int64)
        lengths = np.array([len(path) for path in self.paths], dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(lengths - self.lcp)]).astype(np.int64)

    @property
    def n_unique(self) -> int:
        """Number of distinct tokens in the tree: the least that any run of these paths must compute."""
        return int(self.starts[-1])

    @property
    def longest(self) -> int:
        """Length of the longest path in tokens; 0 for an empty tree."""
        return max((len(path) for path in self.paths), default=0)

    def part(self, first: int, end: int) -> tuple[TokenTree, int]:
        """The paths ``first`` to ``end - 1`` as a tree of their own.

        Returns:
            (the tree, the number to add to its stream indices to get this tree's); what its first path shares with
            the one before it has stream indices of its own there, which this addition does not give.
        """
        tree = TokenTree.__new__(TokenTree)
        tree.paths = self.paths[first:end]
        tree.index = np.arange(end - first)
        tree.lcp = self.lcp[first:end].copy()
        tree.lcp[:1] = 0
        before = int(self.starts[first] - self.lcp[first])
        tree.starts = self.starts[first : end + 1] - before
        tree.starts[0] = 0
        return tree, before

    def middle(self, barred: npt.NDArray[np.bool_] | None = None) -> int:
        """The path that a second part begins with where two cost least: about equal, with little that both compute.

        0 where more than ``MOST_AGAIN`` would have to be computed twice: no second part is worth that.

        Args:
            barred: bool per path, those that no part may begin with.
        """
        if not self.paths:
            return 0
        cost = self.lcp + IMBALANCE_COST * np.abs(self.starts[:-1] - self.n_unique / 2)
        path = int((cost if barred is None else np.where(barred, np.inf, cost)).argmin())
        return path if self.lcp[path] <= MOST_AGAIN * self.n_unique else 0

    def locate(self, paths: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Stream indices of tokens given as (path, position).

        Args:
            paths: int64 ``[k]``, positions in ``self.paths``, ascending.
            positions: int64 ``[k]``, token positions within those paths.

        Returns:
            int64 ``[k]``.
        """
        out = self.starts[paths] + positions - self.lcp[paths]
        # Tokens of the shared part belong to an earlier path: the nearest one that owns that depth.
        shared = np.flatnonzero(positions < self.lcp[paths])
        depths: list[int] = []
        owners: list[int] = []
        at = 0
        for k in shared.tolist():
            path = int(paths[k])
            while at <= path:
                depth = int(self.lcp[at])
                while depths and depths[-1] >= depth:
                    depths.pop()
                    owners.pop()
                depths.append(depth)
                owners.append(at)
                at += 1
            # Few entries are on the stack (the branch points above this path), so a scan beats a bisection.
            level = len(depths) - 1
            while depths[level] > positions[k]:
                level -= 1
            owner = owners[level]
            out[k] = self.starts[owner] + positions[k] - self.lcp[owner]
        return out


def common_prefix(a: Tokens, b: Tokens) -> int:
    """Number of leading tokens that ``a`` and ``b`` share."""
    n = min(len(a), len(b))
    differs = a[:n] != b[:n]
    first = int(differs.argmax()) if n else 0
    return first if n and differs[first] else n
