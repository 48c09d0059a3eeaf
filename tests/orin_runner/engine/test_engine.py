"""The engine on a fake backend: every request answered once, with the numbers of a single sequence."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from orin_runner.batching import tree
from orin_runner.batching.packer import Budget
from orin_runner.engine.engine import Engine
from orin_runner.errors import UserError
from orin_runner.requests import Generated, GenerateRequest, Request, Scored, ScoreRequest
from tests.support.engine_cases import N_VOCAB, STOP, answers, generate_requests, greedy, log_softmax, score_requests
from tests.support.fake_llama import PIECES, FakeContext, reference
from tests.support.trees import random_paths


def engine_for(
    requests: Sequence[Request],
    rng: random.Random,
    *,
    window: int = 0,
    jitter: float = 0.0,
    draft: bool = True,
    n_contexts: int = 1,
) -> tuple[Engine, FakeContext]:
    """An engine with a random budget that the requests fit into, and its first context."""
    longest = 1
    for request in requests:
        extra = (
            max(len(c) for c in request.continuations)
            if isinstance(request, ScoreRequest)
            else max([request.max_new_tokens, *(len(c) for c in request.candidates)])
        )
        longest = max(longest, len(request.prompt) + extra)
    budget = Budget(
        n_cells=longest + rng.choice([0, 3, 50, 500]),
        n_batch=rng.choice([4, 16, 64]),
        n_seq=rng.choice([7, 16, 256]),
        n_outputs=rng.choice([5, 64]),
    )
    n_ubatch = rng.choice([4, 512])
    sizes = (budget.n_cells, budget.n_seq, budget.n_batch, n_ubatch, budget.n_outputs, window, N_VOCAB, jitter)
    contexts = [FakeContext(*sizes) for _ in range(n_contexts)]
    engine = Engine(contexts, budget, n_chunk=4, n_positions=longest, draft=draft)
    return engine, contexts[0]


def tails(rng: random.Random, requests: list[ScoreRequest]) -> list[ScoreRequest]:
    """Of some requests only the last tokens of each continuation are wanted."""
    wanted = [tuple(rng.randrange(1, len(c) + 1) for c in r.continuations) for r in requests]
    return [replace(r, scored=rng.choice([(), n])) for r, n in zip(requests, wanted, strict=True)]


@pytest.mark.parametrize("seed", range(30))
def test_scores_are_those_of_single_sequences(seed: int) -> None:
    """Log-probabilities of every token of every continuation, and whether it is the argmax."""
    rng = random.Random(seed)
    window = rng.choice([0, 0, 12])
    requests = tails(rng, score_requests(rng, rng.randrange(1, 20)))
    engine, context = engine_for(requests, rng, window=window)
    for request, result in zip(requests, answers(engine, requests), strict=True):
        assert isinstance(result, Scored)
        for continuation, n, logprobs, is_greedy in zip(
            request.continuations, request.n_scored, result.logprobs, result.greedy, strict=True
        ):
            tokens = [*request.prompt.tolist(), *continuation[:-n].tolist()]
            best = True
            for token, logprob in zip(continuation[-n:].tolist(), logprobs, strict=True):
                row = reference(tokens, N_VOCAB, window)
                assert logprob == pytest.approx(log_softmax(row)[token], abs=1e-5)
                best &= int(row.argmax()) == token
                tokens.append(token)
            assert is_greedy == best
    stats = engine.stats
    assert stats.computed == stats.unique
    assert context.computed == stats.computed + stats.checked
    assert stats.score_noise.largest < 1e-6


@pytest.mark.parametrize("most_again", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(30))
def test_any_number_of_contexts_gives_what_one_gives(
    seed: int, most_again: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes a part of the tree; what a further part makes compute again is bounded, and counted."""
    monkeypatch.setattr(tree, "MOST_AGAIN", most_again)
    rng = random.Random(seed)
    scores = tails(rng, score_requests(rng, rng.randrange(2, 20)))
    requests = [*scores, *generate_requests(rng, 6, 12)]
    found, computed = [], []
    numbers = (1, 2, rng.randrange(3, 9))
    for n_contexts in numbers:
        engine, _ = engine_for(requests, random.Random(seed), window=12, n_contexts=n_contexts)
        found.append(answers(engine, requests))
        answers(engine, scores)
        computed.append(engine.stats.computed)
    for again in computed:
        assert 0 <= again - computed[0] <= most_again * computed[0]
    for one, *others in zip(*found, strict=True):
        for other in others:
            if isinstance(one, Scored):
                assert isinstance(other, Scored)
                assert one.greedy == other.greedy
                for a, b in zip(one.logprobs, other.logprobs, strict=True):
                    np.testing.assert_allclose(a, b, atol=1e-5)
            else:
                assert isinstance(one, Generated)
                assert isinstance(other, Generated)
                assert one.tokens.tolist() == other.tokens.tolist()


@pytest.mark.parametrize("families", [1, 2, 7])
def test_two_contexts_share_the_work(families: int) -> None:
    """About half of the tokens each, and none twice, where prompts fall into families; one alone where they do not."""
    rng = random.Random(1)
    requests = []
    for family in range(families):
        shared = [family, *(rng.randrange(N_VOCAB) for _ in range(12))]
        for _ in range(60 // families):
            prompt = np.array([*shared, *(rng.randrange(N_VOCAB) for _ in range(4))], dtype=np.int32)
            requests.append(ScoreRequest(prompt, (prompt[:1],)))
    contexts = [FakeContext(64, n_batch=16) for _ in range(2)]
    engine = Engine(contexts, Budget(64, 16, 256, 64), n_chunk=4, n_positions=64)
    answers(engine, requests)
    computed = [contexts[0].computed - engine.stats.checked, contexts[1].computed]
    assert sum(computed) == engine.stats.computed == engine.stats.unique
    assert (computed[1] == 0) if families == 1 else (min(computed) > 0.35 * sum(computed))


@pytest.mark.parametrize("draft", [True, False])
@pytest.mark.parametrize("seed", range(30))
def test_texts_are_those_of_the_plain_greedy_loop(seed: int, draft: bool) -> None:
    """Whatever the budget, the window and the candidates."""
    rng = random.Random(seed)
    window = rng.choice([0, 0, 12])
    requests = generate_requests(rng, rng.randrange(1, 15), window)
    engine, context = engine_for(requests, rng, window=window, draft=draft)
    for request, result in zip(requests, answers(engine, requests), strict=True):
        assert isinstance(result, Generated)
        expected = greedy(request.prompt, STOP, request.max_new_tokens, window)
        assert result.tokens.tolist() == expected
        assert result.stopped == (len(expected) < request.max_new_tokens)
        if not draft:
            assert result.drafted == 0
    assert context.computed == engine.stats.computed + engine.stats.checked


@pytest.mark.parametrize("seed", range(10))
def test_near_ties_are_decided_alone(seed: int) -> None:
    """Rounding that depends on the batch must not reach the text: every plan, with drafts and without, agrees."""
    rng = random.Random(seed)
    requests = generate_requests(rng, 12, 0)
    texts = set()
    settled = 0
    for draft in (True, False):
        for _ in range(4):
            engine, _ = engine_for(requests, rng, jitter=0.2, draft=draft)
            texts.add(tuple(tuple(r.tokens.tolist()) for r in answers(engine, requests) if isinstance(r, Generated)))
            settled += engine.stats.settled
    assert len(texts) == 1
    assert settled


@pytest.mark.parametrize("draft", [True, False])
@pytest.mark.parametrize("seed", range(30))
def test_a_stop_text_ends_the_text_with_the_token_that_completes_it(seed: int, draft: bool) -> None:
    """The tokens are those without stop texts, up to that one; nothing behind it is decoded."""
    rng = random.Random(seed)
    stops = ("aa", "cab", "é", "\n", " b")
    requests = [
        replace(request, until=tuple(rng.sample(stops, rng.randrange(4))))
        for request in generate_requests(rng, rng.randrange(1, 15), 0)
    ]
    engine, _ = engine_for(requests, rng, draft=draft)
    for request, result in zip(requests, answers(engine, requests), strict=True):
        assert isinstance(result, Generated)
        whole = greedy(request.prompt, STOP, request.max_new_tokens, 0)
        texts = [b"".join(PIECES[t] for t in whole[:n]).lstrip(b" ") for n in range(len(whole) + 1)]
        ends = [n for n, text in enumerate(texts) if any(stop.encode() in text for stop in request.until)]
        assert result.tokens.tolist() == (whole[: ends[0]] if ends else whole)
        assert result.stopped == (bool(ends) or len(whole) < request.max_new_tokens)
        assert result.decode_steps <= len(result.tokens)


def test_a_text_asked_for_twice_is_decoded_once() -> None:
    """Equal prompts with equal limits and stops; another limit is another text."""
    rng = random.Random(4)
    once = [replace(request, candidates=()) for request in generate_requests(rng, 6, 0)]
    shorter = [replace(request, max_new_tokens=1) for request in once]
    computed = []
    for requests in (once, [*once, *once, *once]):
        engine, context = engine_for(requests, random.Random(1))
        texts = [r.tokens.tolist() for r in answers(engine, requests) if isinstance(r, Generated)]
        assert texts == texts[:6] * (len(requests) // 6)
        computed.append(context.computed)
    assert computed[0] == computed[1]
    engine, _ = engine_for([*once, *shorter], random.Random(1))
    found = answers(engine, [*once, *shorter])
    for request, text, start in zip(once, found[:6], found[6:], strict=True):
        assert isinstance(text, Generated)
        assert isinstance(start, Generated)
        expected = greedy(request.prompt, STOP, request.max_new_tokens, 0)
        assert (text.tokens.tolist(), start.tokens.tolist()) == (expected, expected[:1])


def test_stop_texts_save_decode_steps() -> None:
    """In verified candidates as well as in decoding: with "a", "b" and "c" few texts outlive their first tokens."""
    rng = random.Random(3)
    plain = generate_requests(rng, 30, 0)
    stopping = [replace(request, until=("a", "b", "c")) for request in plain]
    steps = []
    for requests in (plain, stopping):
        engine, _ = engine_for(requests, random.Random(1))
        results = answers(engine, requests)
        steps.append(sum(r.decode_steps for r in results if isinstance(r, Generated)))
    assert steps[1] < steps[0] / 4


def test_a_candidate_that_runs_into_a_stop_text_takes_one_decode_step() -> None:
    """It ends the text, without any stop token; a text of one token takes none."""
    rng = random.Random(6)
    requests = []
    for prompt in random_paths(rng, 10, longest=30):
        text = greedy(prompt, frozenset(), 30, 0)
        end = next(n for n in range(31) if b"a" in b"".join(PIECES[t] for t in text[:n]))
        candidate = np.array(text[:end], dtype=np.int32)
        requests.append(GenerateRequest(prompt, frozenset(), 30, (candidate,), ("a",)))
    engine, _ = engine_for(requests, rng)
    for request, result in zip(requests, answers(engine, requests), strict=True):
        assert isinstance(result, Generated)
        assert result.tokens.tolist() == request.candidates[0].tolist()
        n = len(result.tokens)
        assert (result.stopped, result.decode_steps, result.drafted) == (True, n > 1, n - 1)


def test_verified_candidates_take_one_decode_step() -> None:
    """Where the text is a candidate, all of it but the first token, which the prompt's row gives."""
    rng = random.Random(5)
    requests = []
    for prompt in random_paths(rng, 10, longest=30):
        text = greedy(prompt, STOP, 30, 0)
        if 2 <= len(text) <= 12:  # of more tokens than a first draft has, it takes two
            requests.append(GenerateRequest(prompt, STOP, 30, (np.array(text, dtype=np.int32),)))
    assert len(requests) > 3
    engine, _ = engine_for(requests, rng)
    for request, result in zip(requests, answers(engine, requests), strict=True):
        assert isinstance(result, Generated)
        assert result.decode_steps == 1
        assert result.drafted == len(request.candidates[0]) - 1
    assert engine.stats.computed == engine.stats.unique


def test_a_request_longer_than_the_context_is_refused_before_anything_is_computed() -> None:
    """The message names the request and what it needs."""
    prompt = np.arange(10, dtype=np.int32)
    requests = [ScoreRequest(prompt[:2], (prompt[:1],)), ScoreRequest(prompt, (prompt[:3],))]
    context = FakeContext(64)
    engine = Engine([context], Budget(64, 64, 256, 256), n_chunk=4, n_positions=11)
    with pytest.raises(UserError, match="request 2 needs 12 tokens"):
        list(engine.run(requests))
    assert context.computed == 0


def test_no_requests_is_not_an_error() -> None:
    """An empty run ends with empty statistics."""
    engine = Engine([FakeContext(64)], Budget(64, 64, 256, 256), n_chunk=4, n_positions=64)
    assert answers(engine, []) == []
    assert engine.stats.computed == 0


@pytest.mark.parametrize("broken", ["position", "sequence", "trunk"])
def test_the_fake_notices_broken_plans(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shift a position, swap a sequence id, copy too little trunk: each must not go unnoticed."""
    rng = random.Random(2)
    requests = score_requests(rng, 30)
    engine, context = engine_for(requests, rng)
    original = context.submit

    def submit(batch: object) -> None:
        if broken == "position":
            batch.positions[-1] += 1  # type: ignore[attr-defined]
        elif broken == "sequence":
            batch.seq_ids[-1] = (batch.seq_ids[-1] + 1) % 7  # type: ignore[attr-defined]
        original(batch)  # type: ignore[arg-type]

    monkeypatch.setattr(context, "submit", submit)
    if broken == "trunk":
        monkeypatch.setattr(context, "copy", lambda src, dst, end: FakeContext.copy(context, src, dst, end - 1))

    def run() -> None:
        for request, result in zip(requests, answers(engine, requests), strict=True):
            assert isinstance(result, Scored)
            row = reference(request.prompt.tolist(), N_VOCAB)
            assert result.logprobs[0][0] == pytest.approx(log_softmax(row)[request.continuations[0][0]], abs=1e-5)

    with pytest.raises((AssertionError, RuntimeError)):
        run()
