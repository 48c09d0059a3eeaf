"""A run's work divided over several that compute it at once, and handed out piece by piece.

The requests stand in the order of their prompts' prefix tree: neighbours share most. A **share** is a stretch of that
order. Whoever computes the stretch behind a cut computes once more what the request there shares with the one before
it, so a cut is made where little is shared, near where it would divide the work equally.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from orin_runner.batching.tree import TokenTree
from orin_runner.requests import GenerateRequest, Request, Tokens

AWAY_COST = 0.1
"""What each token that a cut is away from where it should be costs, in tokens that are computed again."""
TEXT_SHARE = 0.25
"""Length of a greedy text that nobody has seen yet, as a share of the longest allowed."""
FIRST_PIECE = 2 / 3
"""A worker is given this share of what is left of its stretch: the later pieces are smaller, and can be taken over.
Each piece costs a GPU a tenth of a second in which it is not full; larger ones could not be done in time by a worker
that is half as fast as the other."""
LEAST_PIECE = 1 / 64
"""The last pieces are this share of a stretch: so much later than the others may one of equal workers end."""
LEAST_TEXT_PIECE = 1 / 16
"""The same where texts are decoded: few of them are left at each piece's end, which then has small batches."""


class Work:
    """Requests in the order of their prefix tree, and what they cost in tokens.

    Args:
        requests: what is asked.

    Attributes:
        order: int64 ``[n]``, the requests' indices, those with common beginnings side by side.
        before: float64 ``[n + 1]``, tokens to compute before each of them and, last, in all.
        shared: int64 ``[n]``, tokens that each has in common with the one before it; 0 for the first.
        texts: whether greedy texts are among them.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self.texts = any(isinstance(request, GenerateRequest) for request in requests)
        if not requests:
            self.order, self.before, self.shared = np.empty(0, np.int64), np.zeros(1), np.empty(0, np.int64)
            return
        tree = TokenTree([_beginning(request) for request in requests])
        self.order = np.argsort(tree.index, kind="stable")
        path = tree.index[self.order]
        first = np.concatenate([[True], np.diff(path) > 0])
        lengths = np.array([len(tree.paths[k]) for k in path.tolist()])
        self.shared = np.where(first, tree.lcp[path], lengths)
        own = np.array([_own_tokens(requests[i]) for i in self.order.tolist()])
        self.before = np.concatenate([[0.0], np.cumsum(lengths - self.shared + own)])

    def cut(self, first: int, end: int, share: float) -> int:
        """Where a stretch is best cut in two.

        Args:
            first, end: the stretch, in ``order``.
            share: of its work, what the part before the cut should have.

        Returns:
            The place in ``order`` that the second part begins with; ``end`` where it is better not cut.
        """
        places = np.arange(first + 1, end)
        wanted = self.before[first] + share * (self.before[end] - self.before[first])
        cost = self.shared[places] + AWAY_COST * np.abs(self.before[places] - wanted)
        whole = AWAY_COST * (self.before[end] - wanted)
        return int(places[cost.argmin()]) if len(places) and cost.min() < whole else end

    def stretches(self, n: int) -> list[tuple[int, int]]:
        """``n`` stretches of about equal work, one after another in ``order``; some are empty where there is little."""
        ends, at = [], 0
        for k in range(n - 1):
            at = self.cut(at, len(self.order), 1 / (n - k)) if at < len(self.order) else at
            ends.append(at)
        bounds = [0, *ends, len(self.order)]
        return list(pairwise(bounds))


class Shares:
    """Hands out a run's requests to several workers. Its methods may be called from any thread.

    Each worker has a stretch of its own and is given pieces of it, from its beginning on. One that has none left takes
    over the second half of the stretch that has most left. What a worker leaves unanswered goes to whoever asks next.

    Args:
        work: what there is to do.
        n_workers: how many ask for it.
    """

    def __init__(self, work: Work, n_workers: int) -> None:
        self._work, self._change = work, threading.Condition()
        self._left = work.stretches(n_workers)
        self._least = work.before[-1] / n_workers * (LEAST_TEXT_PIECE if work.texts else LEAST_PIECE)
        self._given_back: list[list[int]] = []
        self._at_work: set[int] = set()
        self._n_workers = n_workers
        self._closed = False

    def take(self, worker: int) -> list[int]:
        """The next requests for ``worker``, by index, neighbours side by side.

        Waits while all that is left is with others, which may give it back. Empty where everything is done.
        """
        with self._change:
            while not self._closed:
                piece = self._given_back.pop() if self._given_back else self._piece(worker)
                if piece:
                    self._at_work.add(worker)
                    return piece
                if not self._at_work:
                    break
                self._change.wait()
            return []

    def done(self, worker: int, unanswered: Sequence[int]) -> None:
        """``worker`` has come to the end of its piece, but for these requests, by index."""
        with self._change:
            self._at_work.discard(worker)
            if unanswered:
                self._given_back.append(list(unanswered))
            self._change.notify_all()

    def leave(self) -> bool:
        """Whether a worker may leave for good, because another remains; it then has left."""
        with self._change:
            if self._n_workers < 2:
                return False
            self._n_workers -= 1
            return True

    def close(self) -> None:
        """Nothing more is handed out, and nobody waits."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def _piece(self, worker: int) -> list[int]:
        first, end = self._left[worker]
        if first == end:
            first, end = self._taken_over()
        if first == end:
            return []
        share = max(FIRST_PIECE, self._least / max(self._tokens(first, end), 1.0))
        cut = self._work.cut(first, end, share) if share < 1 else end
        self._left[worker] = (cut, end)
        return [int(i) for i in self._work.order[first:cut]]

    def _taken_over(self) -> tuple[int, int]:
        richest = max(
            range(len(self._left)), key=lambda k: (self._tokens(*self._left[k]), self._left[k][1] - self._left[k][0])
        )
        first, end = self._left[richest]
        cut = self._work.cut(first, end, 0.5) if self._tokens(first, end) > 2 * self._least else end
        if cut == end:  # too little for two, or not to be cut
            cut = first
        self._left[richest] = (first, cut)
        return cut, end

    def _tokens(self, first: int, end: int) -> float:
        return float(self._work.before[end] - self._work.before[first])


def _beginning(request: Request) -> Tokens:
    """What ``request`` may share with others: its prompt, or where that is empty the first continuation."""
    return request.prompt if len(request.prompt) or isinstance(request, GenerateRequest) else request.continuations[0]


def _own_tokens(request: Request) -> float:
    """Tokens to compute beside the prompt."""
    if isinstance(request, GenerateRequest):
        return sum(map(len, request.candidates)) + TEXT_SHARE * request.max_new_tokens
    return sum(len(continuation) - 1 for continuation in request.continuations)
