"""Rounds of decoding: no prompt twice, and the mirror of the cache is the cache after every batch."""

from __future__ import annotations

import random

import numpy as np
import pytest

from orin_runner.batching import tree
from orin_runner.batching.packer import Budget
from orin_runner.engine.decode_round import DecodeRound
from orin_runner.engine.engine import Engine
from orin_runner.requests import Generated, GenerateRequest
from tests.support.engine_cases import N_VOCAB, STOP, answers, generate_requests, greedy
from tests.support.fake_llama import FakeContext
from tests.support.trees import distinct, random_paths


@pytest.mark.parametrize("seed", range(20))
def test_the_mirror_holds_what_the_cache_holds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many cells in use, and reference counts that are those of the sequences."""
    rng = random.Random(seed)
    requests = generate_requests(rng, 20, 0)
    longest = max(len(r.prompt) + max([r.max_new_tokens, *map(len, r.candidates)]) for r in requests)
    budget = Budget(
        longest + rng.choice([0, 20, 300]), rng.choice([8, 32]), rng.choice([7, 16, 64]), rng.choice([6, 64])
    )
    context = FakeContext(budget.n_cells, budget.n_seq, budget.n_batch, 512, budget.n_outputs)
    original, used = DecodeRound.submit, []

    def submit(self: DecodeRound) -> None:
        original(self)
        cells = self._cells
        cells.check_integrity()
        assert cells.used == np.count_nonzero(context.position >= 0)
        used.append(cells.used)

    monkeypatch.setattr(DecodeRound, "submit", submit)
    for _ in Engine([context], budget, n_chunk=4, n_positions=longest).run(requests):
        pass
    assert max(used) > 0
    assert used[-1] == 0


@pytest.mark.parametrize("n_contexts", [1, 2, 5])
@pytest.mark.parametrize("draft", [True, False])
@pytest.mark.parametrize("window", [0, 64])
def test_no_prompt_is_computed_twice(window: int, draft: bool, n_contexts: int) -> None:
    """Where texts leave their candidates, decoding goes on from the cells of the prompt, and of what was right.

    Of a candidate that begins like the text the rest is computed, but it is not what was asked: without drafts as much
    is unique.
    """
    rng = random.Random(window)
    families = [[first, *(rng.randrange(N_VOCAB) for _ in range(20))] for first in range(8)]
    requests = []
    for i in range(64):
        own = [rng.randrange(N_VOCAB) for _ in range(rng.randrange(5, 20))]
        prompt = np.array([*families[i % 8], *own], dtype=np.int32)
        text = greedy(prompt, STOP, 12, window)
        half = [*text[: len(text) // 2], rng.randrange(N_VOCAB), rng.randrange(N_VOCAB)]
        candidates = tuple(np.array(c, dtype=np.int32) for c in ([rng.randrange(N_VOCAB)], half, text) if c)
        requests.append(GenerateRequest(prompt, STOP, 12, rng.choice([candidates[:2], candidates, ()])))
    contexts = [FakeContext(4096, n_batch=64, window=window) for _ in range(n_contexts)]
    engine = Engine(contexts, Budget(4096, 64, 256, 64), n_chunk=4, n_positions=64, draft=draft)
    paths, drafts = [], []
    for request, result in zip(requests, answers(engine, requests), strict=True):
        assert isinstance(result, Generated)
        text = greedy(request.prompt, STOP, 12, window)
        assert result.tokens.tolist() == text
        # The last token is computed where a stop token follows it.
        paths.append([*request.prompt, *(text if result.stopped else text[:-1])])
        drafts += [[*request.prompt, *candidate] for candidate in request.candidates if draft]
    stats = engine.stats
    assert sum(context.computed for context in contexts) == stats.computed + stats.checked
    assert stats.unique == distinct(paths)
    assert stats.computed <= distinct([*paths, *drafts])
    assert (stats.computed > stats.unique) is draft
    assert contexts[-1].computed


def test_two_texts_of_one_prompt_share_it() -> None:
    """Of other limits or candidates. What they have in common counts once, and the prompt is computed once."""
    rng = random.Random(8)
    requests = []
    for prompt in random_paths(rng, 12, longest=40):
        text = np.array(greedy(prompt, STOP, 12, 0), dtype=np.int32)
        for limit, candidates in ((3, ()), (12, ()), (12, (text[:5], text[:2])), (7, (text[:1],))):
            requests.append(GenerateRequest(prompt, STOP, limit, tuple(c for c in candidates if len(c))))
    context = FakeContext(4096, n_batch=64)
    engine = Engine([context], Budget(4096, 64, 256, 64), n_chunk=4, n_positions=80)
    paths = []
    for request, result in zip(requests, answers(engine, requests), strict=True):
        assert isinstance(result, Generated)
        assert result.tokens.tolist() == greedy(request.prompt, STOP, request.max_new_tokens, 0)
        computed = result.tokens if len(result.tokens) < request.max_new_tokens else result.tokens[:-1]
        paths += [np.concatenate([request.prompt, end]) for end in (*request.candidates, computed)]
    assert engine.stats.unique == tree.TokenTree(paths).n_unique
    prompts = tree.TokenTree([request.prompt for request in requests]).n_unique
    candidates = sum(len(c) for request in requests for c in request.candidates)
    steps = sum(r.decode_steps for r in answers(engine, requests) if isinstance(r, Generated))
    assert engine.stats.computed <= prompts + candidates + steps
