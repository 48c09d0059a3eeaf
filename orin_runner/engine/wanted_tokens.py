"""What a run's score requests want of which token paths.

A **wanted token** is asked for at one place: the log-probability of a token after a position of a path. A request's
wanted tokens are consecutive, one after another of its continuations, one after another of their tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orin_runner.requests import NOT_FINITE, Failed, Request, Scored, ScoreRequest, Tokens

Int64 = npt.NDArray[np.int64]


class WantedTokens:
    """The token paths of all score requests, and what is wanted of them.

    Args:
        requests: what is asked; those that are not score requests want nothing.

    Attributes:
        paths: int32 token paths.
        path, position, token: int64 ``[k]``: the log-probability of ``token`` after ``position`` of ``path`` is wanted.
        sent: tokens as sent without sharing: every continuation with its own copy of the prompt, but answers of one
            token read from the same row.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self.paths: list[Tokens] = []
        self._requests = requests
        path: list[int] = []
        wanted: list[Tokens] = []
        counts = np.zeros(len(requests), dtype=np.int64)
        for i, request in enumerate(requests):
            if not isinstance(request, ScoreRequest):
                continue
            known: dict[bytes, int] = {}
            for continuation, n in zip(request.continuations, request.n_scored, strict=True):
                suffix = continuation[:-1]
                key = suffix.tobytes()
                if key not in known:
                    known[key] = len(self.paths)
                    self.paths.append(np.concatenate([request.prompt, suffix]) if key else request.prompt)
                path.append(known[key])
                wanted.append(continuation[-n:])
            counts[i] = sum(request.n_scored)
        # One array of all, not one a continuation: of those there may be a hundred thousand.
        lengths = np.array([len(each) for each in self.paths], dtype=np.int64)
        self.sent = int(lengths.sum())
        of_continuation = np.array(path, dtype=np.int64)
        n_wanted = np.array([len(tokens) for tokens in wanted], dtype=np.int64)
        ends = np.cumsum(n_wanted)
        self.path = np.repeat(of_continuation, n_wanted)
        self.position = np.arange(len(self.path)) + np.repeat(lengths[of_continuation] - ends, n_wanted)
        self.token = np.concatenate([np.empty(0, np.int32), *wanted]).astype(np.int64)
        self._request = np.repeat(np.arange(len(requests)), counts)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._open = counts

    def spans(self, place: Int64) -> tuple[Int64, Int64, Int64]:
        """Where the paths of each request that wants something lie in an order of all paths.

        Args:
            place: int64 ``[len(paths)]``, of each path.

        Returns:
            int64 ``[n]`` each: the request, the first and the last of its places.
        """
        asking = np.flatnonzero(np.diff(self._starts))
        if not len(asking):
            return asking, asking, asking
        places, starts = place[self.path], self._starts[asking]
        return asking, np.minimum.reduceat(places, starts), np.maximum.reduceat(places, starts)

    def of_path(self, path: int) -> Int64:
        """The wanted tokens of ``path``, int64 indices."""
        return np.flatnonzero(self.path == path)

    def first_row(self, path: int) -> int:
        """The first position of ``path`` after which a token is wanted."""
        return int(self.position[self.of_path(path)].min())

    def complete(self, answered: Int64) -> list[int]:
        """The requests that are answered with these wanted tokens, none of which was told before."""
        touched, counts = np.unique(self._request[answered], return_counts=True)
        self._open[touched] -= counts
        return [int(i) for i in touched[self._open[touched] == 0]]

    def result(self, i: int, logprobs: npt.NDArray[np.float64], best: Int64) -> Scored | Failed:
        """The result of score request ``i``; that it failed where one of its log-probabilities is not finite.

        Args:
            i: index of the request.
            logprobs, best: ``[k]``, the natural-log probability of each wanted token, and the argmax of its row.
        """
        request = self._requests[i]
        assert isinstance(request, ScoreRequest)
        each, greedy = [], []
        at = int(self._starts[i])
        if not np.isfinite(logprobs[at : int(self._starts[i + 1])]).all():
            return Failed(NOT_FINITE)
        for continuation, n in zip(request.continuations, request.n_scored, strict=True):
            own = slice(at, at + n)
            each.append(logprobs[own])
            greedy.append(bool(np.array_equal(best[own], continuation[-n:])))
            at += n
        return Scored(tuple(each), tuple(greedy))
