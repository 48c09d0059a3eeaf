"""Drafts: what is proposed, how much of it, and that no text depends on it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from orin_runner.batching.packer import Budget
from orin_runner.engine.drafts import Drafts
from orin_runner.engine.engine import Engine
from orin_runner.engine.greedy_text import GreedyText
from orin_runner.requests import Generated, GenerateRequest, Result
from tests.support.engine_cases import N_VOCAB, STOP, answers, generate_requests, greedy
from tests.support.fake_llama import FakeContext
from tests.support.trees import random_paths


def engine(
    *, draft: bool = True, jitter: float = 0.0, window: int = 0, n_cells: int = 600, n_contexts: int = 1
) -> Engine:
    contexts = [
        FakeContext(n_cells, n_batch=64, n_ubatch=4, n_outputs=64, window=window, jitter=jitter, n_vocab=N_VOCAB)
        for _ in range(n_contexts)
    ]
    return Engine(contexts, Budget(n_cells, 64, 256, 64), n_chunk=4, n_positions=100, draft=draft)


def text_of(*candidates: list[int], bound: int = 20) -> GreedyText:
    """A text of one prompt token."""
    arrays = tuple(np.array(candidate, dtype=np.int32) for candidate in candidates)
    request = GenerateRequest(np.array([1], dtype=np.int32), STOP, bound, arrays)
    return GreedyText(0, request, bound, arrays, lambda _: b"x")


def told(results: Sequence[Result]) -> list[tuple[object, ...]]:
    """What must not depend on drafts."""
    return [
        (result.tokens.tolist(), result.stopped, pytest.approx(result.margin, abs=1e-5))
        for result in results
        if isinstance(result, Generated)
    ]


@pytest.mark.parametrize("window", [0, 12])
@pytest.mark.parametrize("seed", range(10))
def test_texts_do_not_depend_on_how_much_is_proposed(seed: int, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing, one token, by what was accepted, or whole candidates; in a roomy cache and in one with no room."""
    rng = random.Random(seed)
    requests = generate_requests(rng, 20, window)
    longest = max(len(r.prompt) + max([r.max_new_tokens, *map(len, r.candidates)]) for r in requests)
    expected = told(answers(engine(draft=False, window=window), requests))
    chosen = Drafts.longest
    for most in (1, 1000, None):
        monkeypatch.setattr(Drafts, "longest", chosen if most is None else most)
        for n_cells in (longest, 600):
            for n_contexts in (1, 2):
                runner = engine(window=window, n_cells=n_cells, n_contexts=n_contexts)
                assert told(answers(runner, requests)) == expected


@pytest.mark.parametrize("seed", range(5))
def test_near_ties_are_settled_in_drafts_as_in_steps(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding that depends on the batch reaches no text, however much is proposed."""
    requests = generate_requests(random.Random(seed), 12, 0)
    texts = set()
    for most in (1, 3, 1000):
        monkeypatch.setattr(Drafts, "longest", most)
        for draft in (True, False):
            runner = engine(draft=draft, jitter=0.2)
            found = answers(runner, requests)
            texts.add(tuple(tuple(text.tokens.tolist()) for text in found if isinstance(text, Generated)))
            assert runner.stats.settled
    assert len(texts) == 1


def requests_with(rng: random.Random, n: int, right: int, length: int) -> list[GenerateRequest]:
    """Texts of more than ``right`` tokens, each with a candidate that is theirs so far and then another."""
    requests: list[GenerateRequest] = []
    seen: set[bytes] = set()
    for prompt in random_paths(rng, 10 * n, longest=30):
        text = greedy(prompt, STOP, 12, 0)
        if len(text) > right and len(requests) < n and prompt.tobytes() not in seen:
            seen.add(prompt.tobytes())
            wrong = [token for token in range(N_VOCAB) if token not in STOP and token != text[right]]
            candidate = [*text[:right], *(rng.choice(wrong) for _ in range(length - right))]
            requests.append(GenerateRequest(prompt, STOP, 12, (np.array(candidate, dtype=np.int32),)))
    assert len(requests) == n
    return requests


def test_a_candidate_that_does_not_begin_like_the_text_costs_nothing() -> None:
    """Its tokens are never computed."""
    requests = requests_with(random.Random(1), 40, right=0, length=10)
    runner = engine()
    answers(runner, requests)
    bare = engine(draft=False)
    answers(bare, requests)
    assert runner.stats.computed == runner.stats.unique == bare.stats.computed
    assert runner.stats.device.calls == bare.stats.device.calls


def test_where_drafts_are_refused_few_tokens_are_proposed() -> None:
    """Candidates that begin like the text and go on differently: in the end a token a text is computed in vain."""
    requests = requests_with(random.Random(2), 80, right=1, length=11)
    runner = engine(n_cells=1600)
    half = engine(n_cells=1600)
    answers(runner, requests)
    answers(half, requests[:40])
    in_vain = [each.stats.computed - each.stats.unique for each in (half, runner)]
    assert in_vain[1] - in_vain[0] <= 44
    assert in_vain[0] < 150


def test_the_length_of_a_draft_follows_what_was_accepted() -> None:
    """Of 8 accepted and 1 refused (8/9)^11 = 0.27; of 8 and 9 (8/17)^1 = 0.47; of 408 and 9 (408/417)^63 = 0.25."""
    drafts = Drafts()
    assert drafts.longest == 11
    for _ in range(8):
        drafts.count(0, refused=True)
    assert drafts.longest == 1
    for _ in range(100):
        drafts.count(0, refused=True)
    assert drafts.longest == 1
    for _ in range(40):
        drafts.count(100, refused=False)
    assert drafts.longest == 51


def test_the_first_candidate_that_begins_like_the_text_is_proposed() -> None:
    """What it has next, within the text's bound; the last token of a text needs no row."""
    drafts = Drafts()
    text = text_of([2, 3], [4, 5, 6], [4, 8, 9, 10], bound=4)
    text.accept(4, 1.0, -0.5)
    assert drafts.propose(text, 9) == [5, 6]
    assert drafts.propose(text, 1) == [5]
    text.accept(8, 1.0, -0.5)
    assert drafts.propose(text, 9) == [9]
    text.accept(9, 1.0, -0.5)
    assert drafts.propose(text, 9) == []
