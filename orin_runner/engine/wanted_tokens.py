"""What a run's requests ask of which token paths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orin_runner.engine.prefill import StreamPass
from orin_runner.requests import Request, Scored, ScoreRequest, Tokens

Int64 = npt.NDArray[np.int64]

CHECK_REQUESTS = 8
"""At most this many requests are computed a second time, alone, to measure the noise."""
CHECK_SHARE = 0.0025
"""... costing at most this share of the run's unique tokens ..."""
CHECK_AT_LEAST = 4
"""... though at least this many are checked."""


class Probes:
    """The token paths of all score requests and what is asked of them.

    A request's probes are consecutive: one after another of its continuations, one after another of their tokens.

    Args:
        requests: what is asked; those that are not score requests have no probes.

    Attributes:
        paths: int32 token paths.
        path, position, token: int64 ``[k]``: the row after ``position`` of ``path`` is asked for ``token``.
        request: int64 ``[k]``, the request each probe belongs to.
        sent: tokens as sent without sharing: every continuation with its own copy of the prompt, but answers of one
            token read from the same row.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self.paths: list[Tokens] = []
        self.sent = 0
        self._requests = requests
        path: list[Int64] = []
        position: list[Int64] = []
        token: list[Int64] = []
        counts = np.zeros(len(requests), dtype=np.int64)
        for i, request in enumerate(requests):
            if not isinstance(request, ScoreRequest):
                continue
            prompt = request.prompt
            known: dict[bytes, int] = {}
            for continuation, n in zip(request.continuations, request.n_scored, strict=True):
                suffix, wanted = continuation[:-1], continuation[-n:]
                key = suffix.tobytes()
                if key not in known:
                    known[key] = len(self.paths)
                    self.paths.append(np.concatenate([prompt, suffix]) if len(suffix) else prompt)
                    self.sent += len(self.paths[-1])
                end = len(self.paths[known[key]])
                path.append(np.full(n, known[key], dtype=np.int64))
                position.append(np.arange(end - n, end, dtype=np.int64))
                token.append(wanted.astype(np.int64))
                counts[i] += n
        empty = [np.empty(0, dtype=np.int64)]
        self.path = np.concatenate(path or empty)
        self.position = np.concatenate(position or empty)
        self.token = np.concatenate(token or empty)
        self.request = np.repeat(np.arange(len(requests)), counts)
        self._starts = np.concatenate([[0], np.cumsum(counts)])

    def scored(self, i: int, stream: StreamPass) -> Scored:
        """The result of score request ``i``, all of whose probes are answered."""
        request = self._requests[i]
        assert isinstance(request, ScoreRequest)
        logprobs, greedy = [], []
        at = int(self._starts[i])
        for continuation, n in zip(request.continuations, request.n_scored, strict=True):
            probes = slice(at, at + n)
            logprobs.append(stream.logprobs_of(probes))
            greedy.append(bool(np.array_equal(stream.facts.best[stream.row_of[probes]], continuation[-n:])))
            at += n
        return Scored(tuple(logprobs), tuple(greedy))

    def to_check(self, n_unique: int) -> list[int]:
        """Probes to compute a second time: the last ones of evenly spread requests, as many as the allowance pays for.

        Args:
            n_unique: unique tokens of the run.
        """
        if not len(self.request):
            return []
        last = np.flatnonzero(np.diff(self.request, append=-1))
        spread = last[middles(len(last), CHECK_REQUESTS)]
        picked: list[int] = []
        cost = 0
        # Every other one first: the allowance may end the list early.
        for k in [*spread[::2].tolist(), *spread[1::2].tolist()]:
            cost += int(self.position[k]) + 1
            if len(picked) >= CHECK_AT_LEAST and cost > CHECK_SHARE * n_unique:
                break
            picked.append(k)
        return picked


def middles(n: int, parts: int) -> Int64:
    """Indices in the middle of each of at most ``parts`` equal parts of ``n``.

    Not at the edges: the first request of a run is computed much as it is alone.
    """
    parts = min(parts, n)
    return ((np.arange(parts) + 0.5) * n / max(parts, 1)).astype(np.int64)
