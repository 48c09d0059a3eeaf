"""A run's work over several workers: every request once, equal stretches, little computed twice, nothing lost."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest

from orin_runner.batching.shares import AWAY_COST, Shares, Work
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


def handed_out(shares: Shares, n_workers: int, rng: random.Random, *, gives_back: float = 0.0) -> list[list[list[int]]]:
    """The pieces that each of the workers is given; they ask in any order, as though of different speeds."""
    pieces: list[list[list[int]]] = [[] for _ in range(n_workers)]
    while True:
        worker = rng.randrange(n_workers)
        piece = shares.take(worker)
        if not piece:
            return pieces
        kept = [i for i in piece if rng.random() >= gives_back]
        pieces[worker].append(kept)
        shares.done(worker, [i for i in piece if i not in kept])


@pytest.mark.parametrize("n_workers", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(12))
def test_every_request_is_handed_out_once(seed: int, n_workers: int) -> None:
    """Whoever asks, in whatever order, and whatever is given back."""
    rng = random.Random(seed)
    for n in (0, 1, 2, 7, 60):
        asked = requests(seed, n)
        shares = Shares(Work(asked), n_workers)
        pieces = handed_out(shares, n_workers, rng, gives_back=0.3 if seed % 2 else 0.0)
        assert sorted(i for own in pieces for piece in own for i in piece) == list(range(len(asked)))


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


def test_pieces_share_little_and_end_small() -> None:
    """All pieces of four workers that take turns compute at most a hundredth twice, and the last ones are small."""
    asked = subjects(40, 50, 400)
    whole = TokenTree([request.prompt for request in asked]).n_unique
    shares, sizes, turn = Shares(Work(asked), 4), [], 0
    while piece := shares.take(turn % 4):
        shares.done(turn % 4, [])
        sizes.append(TokenTree([asked[i].prompt for i in piece]).n_unique)
        turn += 1
    assert whole <= sum(sizes) <= 1.01 * whole
    assert max(sizes) < 0.2 * whole
    assert max(sizes[-4:]) < 0.03 * whole


def test_one_that_is_faster_takes_over() -> None:
    """Where one of two has stopped with its first piece, the other does all the rest."""
    asked = subjects(20, 20, 100)
    shares = Shares(Work(asked), 2)
    first = shares.take(0)
    others = []
    shares.done(0, [])
    while piece := shares.take(1):
        others += piece
        shares.done(1, [])
    assert sorted([*first, *others]) == list(range(len(asked)))
    # A worker half as fast as the other does a third of it in the time that both need; a cut is at most a subject away.
    assert len(first) <= len(asked) / 3 + len(asked) / 20


def test_what_a_lost_worker_leaves_is_waited_for() -> None:
    """Nothing is left but what the other is at: it may come back."""
    asked = subjects(2, 2, 10)
    shares = Shares(Work(asked), 2)
    left = [shares.take(0)]
    while len([i for piece in left for i in piece]) < len(asked):
        left.append(shares.take(0))
    got: list[list[int]] = []
    waiter = threading.Thread(target=lambda: got.append(shares.take(1)))
    waiter.start()
    waiter.join(0.2)
    assert waiter.is_alive()
    shares.done(0, [3, 1])
    waiter.join(5)
    assert got == [[3, 1]]
    shares.done(1, [])
    assert shares.take(1) == []


def test_nobody_waits_for_what_is_closed() -> None:
    """A run that is left early."""
    shares = Shares(Work(subjects(1, 1, 1)), 2)
    assert shares.take(0)
    got: list[list[int]] = []
    waiter = threading.Thread(target=lambda: got.append(shares.take(1)))
    waiter.start()
    shares.close()
    waiter.join(5)
    assert got == [[]]


def test_work_counts_what_is_computed() -> None:
    """Prompts once, continuations without their last tokens, a quarter of the longest text."""
    ids = [np.array(tokens, dtype=np.int32) for tokens in ([1, 2, 3], [1, 2, 4, 5], [9])]
    asked: list[Request] = [
        ScoreRequest(ids[1], (ids[2], ids[0])),
        ScoreRequest(ids[0], (ids[2],)),
        GenerateRequest(ids[0], frozenset(), 40, (ids[1],)),
    ]
    work = Work(asked)
    assert work.order.tolist() == [1, 2, 0]
    assert work.shared.tolist() == [0, 3, 2]
    assert work.before.tolist() == [0, 3, 3 + 4 + 10, 17 + 2 + 2]
    assert work.texts
