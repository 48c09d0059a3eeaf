"""A run's work divided over several that compute it at once, and handed on from one to another.

The requests stand in the order of their prompts' prefix tree: neighbours share most. A **share** is a stretch of that
order. Whoever computes the stretch behind a cut computes once more what the request there shares with the one before
it, so a cut is made where little is shared, near where it would divide the work equally.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from orin_runner.batching.packer import AWAY_COST
from orin_runner.batching.tree import TokenTree
from orin_runner.requests import GenerateRequest, Request, Tokens

TEXT_SHARE = 0.25
"""Length of a greedy text that nobody has seen yet, as a share of the longest allowed."""
LEAST = 1 / 64
"""A worker that has less than this share of a stretch left is asked for nothing: so much later may it end."""
LEAST_OF_TEXTS = 1 / 16
"""The same where texts are decoded: a few of them take as long as many."""


class Work:
    """Requests in the order of their prefix tree, and what they cost in tokens.

    Args:
        requests: what is asked.

    Attributes:
        order: int64 ``[n]``, the requests' indices, those with common beginnings side by side.
        before: float64 ``[n + 1]``, tokens to compute before each of them and, last, in all.
        shared: int64 ``[n]``, tokens that each has in common with the one before it; 0 for the first.
        place: int64 ``[n]``, where each request stands in ``order``.
        cost: float64 ``[n]``, tokens to compute for each request.
        texts: whether greedy texts are among them.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self.texts = any(isinstance(request, GenerateRequest) for request in requests)
        if not requests:
            self.order, self.before, self.shared = np.empty(0, np.int64), np.zeros(1), np.empty(0, np.int64)
            self.place, self.cost = np.empty(0, np.int64), np.empty(0)
            return
        tree = TokenTree([_beginning(request) for request in requests])
        self.order = np.argsort(tree.index, kind="stable")
        path = tree.index[self.order]
        first = np.concatenate([[True], np.diff(path) > 0])
        lengths = np.array([len(tree.paths[k]) for k in path.tolist()])
        self.shared = np.where(first, tree.lcp[path], lengths)
        own = np.array([_own_tokens(requests[i]) for i in self.order.tolist()])
        self.before = np.concatenate([[0.0], np.cumsum(lengths - self.shared + own)])
        self.place = np.argsort(self.order)
        self.cost = np.diff(self.before)[self.place]

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

    Each worker is given a stretch of its own. One that has come to its end takes over half of what the one with most
    left has not begun: whoever is at work is asked for it (``ask_back``) and says what it will not do (``given``). What
    a worker leaves unanswered goes to whoever asks next.

    Args:
        work: what there is to do.
        n_workers: how many ask for it.
        ask_back: called with a worker at work, which then calls ``given``, unless it comes to its end before.
    """

    def __init__(self, work: Work, n_workers: int, ask_back: Callable[[int], None]) -> None:
        self._work, self._ask_back, self._change = work, ask_back, threading.Condition()
        self._stretches = work.stretches(n_workers)
        self._least = work.before[-1] / n_workers * (LEAST_OF_TEXTS if work.texts else LEAST)
        self._given_back: list[list[int]] = []
        self._left: dict[int, float] = {}  # tokens to do, of the workers at work
        self._asked: set[int] = set()  # of these, those that have been asked for some
        self._n_workers = n_workers
        self._closed = False

    def take(self, worker: int) -> list[int]:
        """The next requests for ``worker``, by index, neighbours side by side.

        Waits while all that is left is with others, which may give it back. Empty where everything is done.
        """
        with self._change:
            while not self._closed:
                piece = self._given_back.pop() if self._given_back else self._stretch(worker)
                if piece:
                    self._left[worker] = float(self._work.cost[piece].sum())
                    return piece
                if not self._left:
                    break
                self._ask()
                if not self._given_back:
                    self._change.wait()
            return []

    def answered(self, worker: int, request: int) -> None:
        """``worker`` has answered one of its piece."""
        with self._change:
            self._left[worker] -= self._work.cost[request]

    def given(self, worker: int, requests: Sequence[int]) -> None:
        """``worker`` will not answer these of its piece, by index; none where it has none to give."""
        with self._change:
            if not requests:
                return  # it is not asked again
            self._left[worker] -= self._work.cost[list(requests)].sum()
            self._asked.discard(worker)
            place = self._work.place
            self._given_back.append(sorted(requests, key=lambda i: int(place[i])))
            self._change.notify_all()

    def done(self, worker: int, unanswered: Sequence[int]) -> None:
        """``worker`` has come to the end of its piece, but for these requests, by index."""
        with self._change:
            self._left.pop(worker, None)
            self._asked.discard(worker)
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

    def _stretch(self, worker: int) -> list[int]:
        """That of ``worker``; where it has had it, one whose worker has not come for it."""
        for k in (worker, *range(len(self._stretches))):
            first, end = self._stretches[k]
            self._stretches[k] = (end, end)
            if first < end:
                return [int(i) for i in self._work.order[first:end]]
        return []

    def _ask(self) -> None:
        """Ask the one that has most left, if it is enough."""
        able = {k: left for k, left in self._left.items() if k not in self._asked and left > self._least}
        if able:
            richest = max(able, key=able.__getitem__)
            self._asked.add(richest)
            self._ask_back(richest)


def _beginning(request: Request) -> Tokens:
    """What ``request`` may share with others: its prompt, or where that is empty the first continuation."""
    return request.prompt if len(request.prompt) or isinstance(request, GenerateRequest) else request.continuations[0]


def _own_tokens(request: Request) -> float:
    """Tokens to compute beside the prompt."""
    if isinstance(request, GenerateRequest):
        return max(TEXT_SHARE * request.max_new_tokens, *map(len, request.candidates), 0)
    return sum(len(continuation) - 1 for continuation in request.continuations)
