"""Random requests for an engine on the fake backend, and what their answers must be."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from orin_runner.engine.engine import Engine
from orin_runner.requests import GenerateRequest, Request, Result, ScoreRequest, Tokens
from tests.support.fake_llama import reference
from tests.support.trees import random_paths

N_VOCAB = 32
STOP = frozenset({7, 11, 13})


def answers(engine: Engine, requests: Sequence[Request]) -> list[Result]:
    """Results in request order; every request must be answered exactly once."""
    found: dict[int, Result] = {}
    for i, result in engine.run(requests):
        assert i not in found
        found[i] = result
    assert sorted(found) == list(range(len(requests)))
    return [found[i] for i in range(len(requests))]


def log_softmax(row: np.ndarray) -> np.ndarray:
    wide = row.astype(np.float64)
    return wide - np.log(np.exp(wide - wide.max()).sum()) - wide.max()


def greedy(prompt: Tokens, stop: frozenset[int], limit: int, window: int) -> list[int]:
    """The plain greedy loop, one token at a time."""
    tokens: list[int] = []
    while len(tokens) < limit:
        best = int(reference([*prompt.tolist(), *tokens], N_VOCAB, window).argmax())
        if best in stop:
            break
        tokens.append(best)
    return tokens


def score_requests(rng: random.Random, n: int) -> list[ScoreRequest]:
    return [
        ScoreRequest(
            prompt,
            tuple(
                np.array([rng.randrange(N_VOCAB) for _ in range(rng.randrange(1, 5))], dtype=np.int32)
                for _ in range(rng.randrange(1, 5))
            ),
        )
        for prompt in random_paths(rng, n, longest=40)
    ]


def generate_requests(rng: random.Random, n: int, window: int) -> list[GenerateRequest]:
    """Some name the true text among their candidates, some a prefix of it, some only wrong ones, some none."""
    requests = []
    for prompt in random_paths(rng, n, longest=30):
        limit = rng.randrange(1, 20)
        text = greedy(prompt, STOP, limit, window)
        wrong = [rng.randrange(N_VOCAB) for _ in range(rng.randrange(1, 6))]
        half = [*text[: len(text) // 2], rng.randrange(N_VOCAB)]
        candidates = rng.choice([[], [wrong], [text or wrong, wrong], [half], [wrong, text or wrong, half]])
        arrays = tuple(np.array(candidate[:limit], dtype=np.int32) for candidate in candidates)
        requests.append(GenerateRequest(prompt, STOP, limit, arrays))
    return requests
