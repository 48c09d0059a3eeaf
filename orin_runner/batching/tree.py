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

from orin_runner.requests import Tokens, common_prefix

MOST_AGAIN = 0.01
"""Share of a tree that its further parts together may compute again, so that other contexts can work on it. With a
fifth of that, a quarter of MMLU that is mostly one subject was cut at 0.86: one of two contexts had nothing to do for
most of it."""
IMBALANCE_COST = 0.2
"""What each token that a cut is away from an equal division costs, in tokens: twice as many are computed with nothing
beside them, which on a GPU takes some tenth longer."""


def inside(first: npt.NDArray[np.int64], last: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.bool_]:
    """Where an order of ``n`` paths cannot be cut without dividing something.

    Args:
        first, last: int64 ``[k]``, the places where each thing's paths begin and end.
        n: how many paths there are.

    Returns:
        bool ``[n]``: whether a cut before this path has paths of one thing on both sides.
    """
    change = np.zeros(n + 1, dtype=np.int64)
    np.add.at(change, first + 1, 1)
    np.add.at(change, last + 1, -1)
    return np.cumsum(change[:-1]) > 0


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

    def subtree(self, first: int, end: int) -> tuple[TokenTree, int]:
        """The paths ``first`` to ``end - 1`` as a tree of their own.

        Its stream begins with all of path ``first``, whatever that shares with the path before it. Of the paths
        [1, 2, 3] and [1, 2, 4, 5] the second alone is a tree with the stream 1, 2, 4, 5; here its new tokens 4 and 5
        have the stream indices 3 and 4, there 2 and 3, so that the difference is 1.

        Returns:
            (the tree, what to add to its stream indices to get this tree's). The sum is right for every token but
            those that path ``first`` shares with the path before it.
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

    def cuts(self, n_parts: int) -> list[int]:
        """The paths that further parts begin with, where ``n_parts`` are about equal and share little.

        What a part shares with the one before it is computed by both. A part that would cost more than its part of
        ``MOST_AGAIN`` of the tree that way is not begun.

        Args:
            n_parts: how many parts are wanted.

        Returns:
            Ascending, at most ``n_parts - 1``; empty where the tree stays whole.
        """
        if not self.paths or n_parts < 2:
            return []
        closed = self.lcp > MOST_AGAIN * self.n_unique / (n_parts - 1)
        found: list[int] = []
        at = 0
        for k in range(1, n_parts):
            away = np.abs(self.starts[at:-1] - self.n_unique * k / n_parts)
            cost = np.where(closed[at:], np.inf, self.lcp[at:]) + IMBALANCE_COST * away
            cost[0] = IMBALANCE_COST * away[0]  # no further part
            best = at + int(cost.argmin())
            if best > at:
                found.append(best)
                at = best
        return found

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
