"""A run's work over several workers: every request once, equal stretches, little computed twice, nothing lost."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pytest

from orin_runner.batching.packer import AWAY_COST
from orin_runner.batching.shares import LEAST, Shares, Work
from orin_runner.batching.tree import TokenTree
from orin_runner.requests import GenerateRequest, Request, ScoreRequest
from tests.support.engine_cases import generate_requests, score_requests


def requests(seed: int, n: int) -> list[Request]:
    rng = random.Random(seed)
    kind = seed % 3
    texts = generate_requests(rng, n // 2, 0) if kind else []
    found = [*(score_requests(rng, n - len(texts)) if kind < 2 else []), *texts]
    rng.shuffle(found)
    return found * (1 + seed % 2)  # every other run asks everything twice


def subjects(n_subjects: int, n_each: int, shots: int) -> list[Request]:
    """Questions that share a long beginning with those of their subject, as MMLU's do."""
    rng = random.Random(1)
    found: list[Request] = []
    for subject in range(n_subjects):
        beginning = [subject, *(rng.randrange(100, 200) for _ in range(shots))]
        for _ in range(n_each):
            prompt = np.array([*beginning, *(rng.randrange(200, 300) for _ in range(60))], dtype=np.int32)
            found.append(ScoreRequest(prompt, tuple(np.array([k], dtype=np.int32) for k in range(4))))
    rng.shuffle(found)
    return found


class _WaitsError(Exception):
    """A worker would wait for another."""


class Workers:
    """Workers of given speeds in tokens a second, on a clock of their own; each gives back half of what it is asked.

    Attributes:
        pieces: of each worker, what it has answered, piece by piece.
        ended: of each worker, when it has answered its last.
    """

    def __init__(self, asked: Sequence[Request], speeds: Sequence[float], *, dies: float = 0.0, seed: int = 0) -> None:
        self.work = Work(asked)
        self.shares = Shares(self.work, len(speeds), self._asked_back)
        self._speeds, self._dies, self._rng = speeds, dies, random.Random(seed)
        self.shares._change.wait = self._waits  # type: ignore[method-assign]  # nobody would wake it on this clock
        self._at: dict[int, tuple[list[int], float]] = {}  # what each is at, and since when
        self._now = 0.0
        self.pieces: list[list[list[int]]] = [[] for _ in speeds]
        self.ended = [0.0] * len(speeds)

    def run(self) -> Workers:
        """Until nothing is left."""
        idle = set(range(len(self._speeds)))
        while True:
            for k in sorted(idle):
                with suppress(_WaitsError):
                    piece = self.shares.take(k)
                    if not piece:
                        assert not self._at
                        return self
                    self._at[k] = (piece, self._now)
                    idle.discard(k)
            k = min(self._at, key=self._end)
            self._now = self._end(k)
            piece, _ = self._at.pop(k)
            kept = [i for i in piece if self._rng.random() >= self._dies]
            for i in kept:
                self.shares.answered(k, i)
            self.shares.done(k, [i for i in piece if i not in kept])
            self.pieces[k].append(kept)
            self.ended[k] = self._now
            idle.add(k)

    def _waits(self, timeout: float | None = None) -> bool:
        raise _WaitsError

    def _end(self, k: int) -> float:
        piece, since = self._at[k]
        return since + float(self.work.cost[piece].sum()) / self._speeds[k]

    def _asked_back(self, k: int) -> None:
        piece, since = self._at[k]
        costs = np.cumsum(self.work.cost[piece])
        done = (self._now - since) * self._speeds[k]
        first = int(np.searchsorted(costs, done)) + 1
        away = np.abs(costs[first:] - done - (costs[-1] - done) / 2)
        # As an engine does it: near the middle of what is left, where little is shared.
        cost = self.work.shared[self.work.place[piece[first + 1 :]]] + AWAY_COST * away[:-1]
        cut = first + 1 + int(cost.argmin()) if len(cost) else len(piece)
        self._at[k] = (piece[:cut], since)
        self.shares.given(k, piece[cut:])


@pytest.mark.parametrize("n_workers", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(12))
def test_every_request_is_handed_out_once(seed: int, n_workers: int) -> None:
    """Whatever their speeds, and whatever they leave."""
    rng = random.Random(seed)
    for n in (0, 1, 2, 7, 60):
        asked = requests(seed, n)
        speeds = [rng.uniform(0.5, 5) for _ in range(n_workers)]
        workers = Workers(asked, speeds, dies=0.3 if seed % 2 else 0.0, seed=seed).run()
        assert sorted(i for own in workers.pieces for piece in own for i in piece) == list(range(len(asked)))


@pytest.mark.parametrize("n_workers", [2, 4, 7])
def test_stretches_are_of_equal_work_and_share_little(n_workers: int) -> None:
    """Cut between subjects where that is nearly right: no few-shot prefix is computed by two."""
    asked = subjects(40, 50, 400)
    work = Work(asked)
    stretches = work.stretches(n_workers)
    assert [first for first, _ in stretches[1:]] == [end for _, end in stretches[:-1]]
    alone = [TokenTree([asked[i].prompt for i in work.order[first:end].tolist()]).n_unique for first, end in stretches]
    whole = TokenTree([request.prompt for request in asked]).n_unique
    assert sum(alone) == whole
    # A cut may be as far from its place as the prefix costs.
    assert max(alone) - min(alone) <= 2 * 401 / AWAY_COST


@pytest.mark.parametrize("speeds", [(1, 1), (1, 1, 1, 1), (1, 1.1, 0.9, 1), (1, 2), (1, 1, 1, 0.2)])
def test_all_end_together_and_compute_little_twice(speeds: tuple[float, ...]) -> None:
    """Whatever their speeds: at most some parts of a stretch apart, and a hundredth of the tokens twice."""
    asked = subjects(40, 200, 400)
    whole = TokenTree([request.prompt for request in asked]).n_unique
    workers = Workers(asked, speeds).run()
    pieces = [piece for own in workers.pieces for piece in own]
    computed = sum(TokenTree([asked[i].prompt for i in piece]).n_unique for piece in pieces)
    assert whole <= computed <= 1.01 * whole
    # The slowest may be at what is too little to be taken over, and at one subject's beginning.
    assert max(workers.ended) - min(workers.ended) <= (3 * LEAST * whole / len(speeds) + 460) / min(speeds)


def test_one_that_has_stopped_is_relieved_of_all_it_can_give() -> None:
    """It has begun with the first only; the other does all the rest."""
    asked = subjects(20, 20, 100)
    held: list[int] = []

    def gives(worker: int) -> None:
        half = held[1 + len(held) // 2 :]
        del held[len(held) - len(half) :]
        shares.given(worker, half)

    shares = Shares(Work(asked), 2, gives)
    held += shares.take(0)
    others: list[int] = []
    waiter = threading.Thread(target=lambda: others.extend(_all(shares, 1)))
    waiter.start()
    while waiter.is_alive() and len(held) > 2 + len(asked) * LEAST:
        waiter.join(0.01)
    for i in held:
        shares.answered(0, i)
    shares.done(0, [])
    waiter.join(10)
    assert sorted([*held, *others]) == list(range(len(asked)))
    assert len(held) <= 2 + len(asked) * LEAST


def _all(shares: Shares, worker: int) -> list[int]:
    """What a worker is handed that answers all at once."""
    found: list[int] = []
    while piece := shares.take(worker):
        found += piece
        for i in piece:
            shares.answered(worker, i)
        shares.done(worker, [])
    return found


def test_what_a_lost_worker_leaves_is_waited_for() -> None:
    """Nothing is left but what the other is at: it may come back."""
    asked = subjects(2, 2, 10)
    asked_back: list[int] = []
    shares = Shares(Work(asked), 2, asked_back.append)
    left = [*shares.take(0)]
    shares.done(0, [])
    left += shares.take(0)  # the other has not come for its own
    assert sorted(left) == list(range(len(asked)))
    got: list[list[int]] = []
    waiter = threading.Thread(target=lambda: got.append(shares.take(1)))
    waiter.start()
    waiter.join(0.2)
    assert waiter.is_alive()
    shares.done(0, [3, 1])
    waiter.join(5)
    assert got == [[3, 1]]
    assert asked_back == [0]
    shares.done(1, [])
    assert shares.take(1) == []


def test_nobody_waits_for_what_is_closed() -> None:
    """A run that is left early."""
    shares = Shares(Work(subjects(1, 1, 1)), 2, lambda _: None)
    assert shares.take(0)
    got: list[list[int]] = []
    waiter = threading.Thread(target=lambda: got.append(shares.take(1)))
    waiter.start()
    shares.close()
    waiter.join(5)
    assert got == [[]]


def test_work_counts_what_is_computed() -> None:
    """Prompts once, continuations without their last tokens; of a text a quarter of its bound, or a candidate."""
    ids = [np.array(tokens, dtype=np.int32) for tokens in ([1, 2, 3], [1, 2, 4, 5], [9])]
    asked: list[Request] = [
        ScoreRequest(ids[1], (ids[2], ids[0])),
        ScoreRequest(ids[0], (ids[2],)),
        GenerateRequest(ids[0], frozenset(), 40, (ids[1],)),
    ]
    work = Work(asked)
    assert work.order.tolist() == [1, 2, 0]
    assert work.shared.tolist() == [0, 3, 2]
    assert work.before.tolist() == [0, 3, 3 + 10, 13 + 2 + 2]
    short = GenerateRequest(ids[0], frozenset(), 8, (ids[1], ids[2]))
    assert Work([short]).before.tolist() == [0, 3 + 4]
    assert work.texts
