"""Does the tree give what one sequence gives? Random requests, all together and each alone, on the model at hand.

The requests are random tokens, so this needs no data: prefixes that branch early and late, wide fans, prompts beyond
the sliding window where the model has one. Rounding is measured, not assumed: the same prompts backwards, which share
no beginnings, are computed all together and each alone as well. Where they are few, the same tokens in other orders
are, too: the largest of a handful of differences says little of how large they get. They fill batches as the tree does,
and batches of another size are computed by other kernels. The tree may differ by a few times as much. A lost or
mixed-up prefix moves log-probabilities by their spread, tens of times that; so what differs by a good part of the
spread is no rounding, whatever was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from orin_runner.errors import RunError
from orin_runner.requests import Failed, Scored, ScoreRequest
from orin_runner.runner import Runner

TOLERANCE = 4.0
"""Times the rounding of unrelated sequences that the tree may differ: it has more shapes."""
MOST_OF_SPREAD = 0.25
"""... but never by more than this share of the spread."""
LEAST_ROUNDING = 1e-3
"""Rounding below this is taken as this; a lost prefix costs far more."""
LEAST_STRANGERS = 24
"""Unrelated sequences that rounding is measured on, or more."""
N_CHOICES = 16


@dataclass(frozen=True, slots=True)
class SelftestResult:
    """What came out.

    Attributes:
        requests: how many were compared.
        unique, computed: tokens of the tree.
        longest: tokens of the longest request.
        window: the model's sliding window, 0 for none.
        difference: largest difference of any log-probability between tree and single sequence.
        rounding: largest difference between a sequence alone and beside others with which it shares nothing.
        spread: median standard deviation of the log-probabilities of a request's choices, which are random tokens.
    """

    requests: int
    unique: int
    computed: int
    longest: int
    window: int
    difference: float
    rounding: float
    spread: float

    @property
    def allowed(self) -> float:
        return max(LEAST_ROUNDING, min(TOLERANCE * max(self.rounding, LEAST_ROUNDING), MOST_OF_SPREAD * self.spread))

    @property
    def passed(self) -> bool:
        return self.difference <= self.allowed


def random_requests(n: int, n_vocab: int, window: int, longest: int, seed: int) -> list[ScoreRequest]:
    """``n`` requests in families that share prefixes of every length up to ``longest`` tokens.

    A third of the families go beyond ``window``, if there is one and ``longest`` allows.
    """
    rng = np.random.default_rng(seed)
    found: list[ScoreRequest] = []
    while len(found) < n:
        beyond = window and longest > window and len(found) % 3 == 0
        length = longest if beyond else int(rng.integers(8, max(9, min(longest, window or longest) // 2)))
        trunk = rng.integers(0, n_vocab, length).astype(np.int32)
        for _ in range(int(rng.integers(2, 7))):
            tail = rng.integers(0, n_vocab, int(rng.integers(1, 7))).astype(np.int32)
            # Branches early and late, some just after the window's edge.
            at = int(rng.choice([length - len(tail), int(rng.integers(1, length - len(tail) + 1))]))
            prompt = np.concatenate([trunk[:at], tail])
            # Choices of one token: alone, the request is then a single sequence.
            choices = tuple(rng.integers(0, n_vocab, 1).astype(np.int32) for _ in range(N_CHOICES))
            found.append(ScoreRequest(prompt, choices))
    return found[:n]


def compare(
    requests: Sequence[ScoreRequest],
    runner: Runner,
    window: int,
    on_done: Callable[[int], None] = lambda _: None,
) -> SelftestResult:
    """Run all requests together and each alone, as they are and backwards.

    Args:
        requests: what to compare.
        runner: answers requests.
        window: named in the result.
        on_done: called with the number of requests compared.
    """
    others = strangers(requests)
    of_strangers, together = _answers(runner, others), _answers(runner, requests)
    tree = runner.stats
    difference = rounding = 0.0
    for i, stranger in enumerate(others):
        apart = _largest(of_strangers[i], _answers(runner, [stranger])[0])
        rounding = max(rounding, apart, runner.stats.score_noise.near_tie)
    spreads = []
    for i, request in enumerate(requests):
        alone = _answers(runner, [request])[0]
        difference = max(difference, _largest(together[i], alone))
        spreads.append(np.concatenate(alone.logprobs).std())
        on_done(i + 1)
    return SelftestResult(
        requests=len(requests),
        unique=tree.unique,
        computed=tree.computed,
        longest=max(len(request.prompt) for request in requests),
        window=window,
        difference=difference,
        rounding=rounding,
        spread=float(np.median(spreads)),
    )


def strangers(requests: Sequence[ScoreRequest]) -> list[ScoreRequest]:
    """The requests backwards, then in other orders of their tokens until there are ``LEAST_STRANGERS``."""
    found = [ScoreRequest(request.prompt[::-1].copy(), request.continuations) for request in requests]
    rng = np.random.default_rng(len(requests))
    while len(found) < LEAST_STRANGERS:
        request = requests[len(found) % len(requests)]
        found.append(ScoreRequest(rng.permutation(request.prompt), request.continuations))
    return found


def _largest(one: Scored, other: Scored) -> float:
    return float(np.abs(np.concatenate(one.logprobs) - np.concatenate(other.logprobs)).max())


def _answers(runner: Runner, requests: Sequence[ScoreRequest]) -> dict[int, Scored]:
    found: dict[int, Scored] = {}
    for i, result in runner.run(requests):
        if isinstance(result, Failed):
            raise RunError(f"a request failed: {result.reason}")
        assert isinstance(result, Scored)
        found[i] = result
    return found
