"""Requests of a run that an engine leaves to others: whole ones that it has not begun, and nothing else changes."""

from __future__ import annotations

import random

import numpy as np
import pytest

from orin_runner.batching.packer import Budget
from orin_runner.engine.engine import Engine
from orin_runner.requests import Failed, Generated, Request, Result, Scored, ScoreRequest
from orin_runner.runner import Progress
from tests.orin_runner.engine.test_engine import engine_for, tails
from tests.support.engine_cases import N_VOCAB, answers, generate_requests, score_requests
from tests.support.fake_llama import FakeContext


def run_and_ask(
    engine: Engine, requests: list[Request], rng: random.Random, often: float
) -> tuple[dict[int, Result], list[int]]:
    """What the engine answers, by index, and what it gives back where it is asked at some of its batches."""
    given: list[int] = []

    def on_progress(progress: Progress) -> None:
        if rng.random() < often:
            given.extend(engine.give_back(rng.choice([0.2, 0.5, 1.0])))

    found: dict[int, Result] = {}
    for i, result in engine.run(requests, on_progress):
        assert i not in found
        assert not isinstance(result, Failed)
        found[i] = result
    return found, given


def _same(a: Result, b: Result) -> bool:
    if isinstance(a, Scored) and isinstance(b, Scored):
        close = all(np.allclose(x, y, atol=1e-5) for x, y in zip(a.logprobs, b.logprobs, strict=True))
        return close and a.greedy == b.greedy
    assert isinstance(a, Generated)
    assert isinstance(b, Generated)
    return a.tokens.tolist() == b.tokens.tolist()


@pytest.mark.parametrize("kind", ["scores", "texts", "both"])
@pytest.mark.parametrize("seed", range(40))
def test_each_request_is_answered_or_given_back(seed: int, kind: str) -> None:
    """Once, with the same answer, on any number of contexts; what was given back can be asked afterwards."""
    rng = random.Random(seed)
    requests: list[Request] = [
        *(tails(rng, score_requests(rng, rng.randrange(2, 40))) if kind != "texts" else []),
        *(generate_requests(rng, rng.randrange(2, 20), 0) if kind != "scores" else []),
    ]
    requests *= rng.choice([1, 1, 2])
    expected = answers(engine_for(requests, random.Random(seed))[0], requests)
    engine, _ = engine_for(requests, rng, n_contexts=rng.choice([1, 2, 3]))
    left = list(range(len(requests)))
    for often in (0.5, 0.2, 0.0):
        found, given = run_and_ask(engine, [requests[i] for i in left], rng, often)
        assert sorted([*found, *given]) == list(range(len(left)))
        assert all(_same(result, expected[left[k]]) for k, result in found.items())
        left = [left[k] for k in given]
    assert not left


def _families(n: int, each: int) -> list[Request]:
    """Prompts of 20 tokens, of which those of a family share 12."""
    rng = random.Random(1)
    found: list[Request] = []
    for family in range(n):
        shared = [family, *(rng.randrange(N_VOCAB) for _ in range(11))]
        for _ in range(each):
            prompt = np.array([*shared, *(rng.randrange(N_VOCAB) for _ in range(8))], dtype=np.int32)
            found.append(ScoreRequest(prompt, (prompt[:1],)))
    return found


@pytest.mark.parametrize("n_contexts", [1, 2])
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_what_is_given_back_is_not_computed(n_contexts: int, share: float) -> None:
    """About the share that was asked for, cut between families; and the noise is measured on what was computed."""
    requests = _families(16, 16)
    contexts = [FakeContext(64, n_batch=16) for _ in range(n_contexts)]
    engine = Engine(contexts, Budget(64, 16, 256, 64), n_chunk=4, n_positions=64)
    given: list[int] = []

    def on_progress(progress: Progress) -> None:
        if not given and progress.computed:
            given.extend(engine.give_back(share))

    answered = dict(engine.run(requests, on_progress))
    whole = engine.stats.unique
    assert sorted([*answered, *given]) == list(range(len(requests)))
    assert abs(engine.stats.computed - (1 - share) * whole) < 0.08 * whole
    families = [{i // 16 for i in indices} for indices in (given, answered)]
    assert len(families[0] & families[1]) <= n_contexts
    assert engine.stats.score_noise.n >= 1
    assert engine.stats.checked <= max(0.05 * engine.stats.computed, 20)


def test_too_little_is_not_given_back() -> None:
    """What two batches do is done before another has begun with it; nothing where nothing runs."""
    requests = _families(1, 2)
    engine = Engine([FakeContext(64, n_batch=16)], Budget(64, 16, 256, 64), n_chunk=4, n_positions=64)
    found, given = run_and_ask(engine, requests, random.Random(1), 1.0)
    assert len(found) == 2
    assert given == []
    assert engine.give_back(0.5) == []
