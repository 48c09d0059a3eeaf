"""Tokens sent, unique and computed, and drafts, against paths that are written out."""

from __future__ import annotations

import random

import numpy as np
import pytest

from orin_runner.batching.packer import Budget
from orin_runner.engine.engine import Engine
from orin_runner.engine.greedy_text import GreedyText
from orin_runner.requests import Generated, GenerateRequest, Request, Result, ScoreRequest
from orin_runner.runner import Progress, RunStats
from tests.support.engine_cases import N_VOCAB, STOP, answers, generate_requests, score_requests
from tests.support.fake_llama import FakeContext


def engine(*, draft: bool = True) -> Engine:
    context = FakeContext(600, n_batch=64, n_outputs=64, n_vocab=N_VOCAB)
    return Engine([context], Budget(600, 64, 256, 64), n_chunk=4, n_positions=600, draft=draft)


def ids(*tokens: int) -> np.ndarray:
    return np.array(tokens, dtype=np.int32)


def written_out(requests: list[Request], results: list[Result]) -> tuple[int, int]:
    """(sent, unique): each request's own paths, and every beginning of one."""
    paths: list[tuple[int, ...]] = []
    for request, result in zip(requests, results, strict=True):
        prompt = tuple(request.prompt.tolist())
        if isinstance(request, ScoreRequest):
            paths += {(*prompt, *choice[:-1].tolist()) for choice in request.continuations}
        else:
            assert isinstance(result, Generated)
            tokens = result.tokens.tolist()
            paths.append((*prompt, *(tokens if result.stopped else tokens[:-1])))
    return sum(map(len, paths)), len({path[:n] for path in paths for n in range(1, len(path) + 1)})


def test_a_prompt_is_sent_with_each_choice_and_once_for_all_of_one_token() -> None:
    """[1 2 3 4] for the choices 4 5 and 4 6, [1 2 3] for 7 and 8: seven tokens, four of them different."""
    run = engine()
    answers(run, [ScoreRequest(ids(1, 2, 3), (ids(4, 5), ids(4, 6), ids(7), ids(8)))])
    assert (run.stats.sent, run.stats.unique, run.stats.computed) == (7, 4, 4)


def test_a_text_asked_for_twice_is_sent_twice() -> None:
    """And computed once."""
    rng = random.Random(2)
    once = [request for request in generate_requests(rng, 12, 0) if not request.candidates][:2]
    twice: list[Request] = [*once, *once]
    run = engine()
    results = answers(run, twice)
    assert (run.stats.sent, run.stats.unique) == written_out(twice, results)
    assert run.stats.sent == 2 * written_out(list(once), results[: len(once)])[0]
    assert run.stats.computed == run.stats.unique


@pytest.mark.parametrize("seed", range(10))
def test_drafts_change_neither_what_is_sent_nor_what_is_unique(seed: int) -> None:
    """Prompts, choices and texts are the work; a draft that no text follows is computed beside it."""
    rng = random.Random(seed)
    requests: list[Request] = [*score_requests(rng, 6), *generate_requests(rng, 12, 0)]
    for draft in (True, False):
        run = engine(draft=draft)
        results = answers(run, requests)
        assert (run.stats.sent, run.stats.unique) == written_out(requests, results)
        assert run.stats.computed == run.stats.device.tokens >= run.stats.unique


def test_progress_counts_what_is_asked_from_the_first_batch_on() -> None:
    """Tokens computed grow; what was asked stands from the beginning, and grows by the texts."""
    rng = random.Random(3)
    requests: list[Request] = [*score_requests(rng, 20), *generate_requests(rng, 12, 0)]
    run, seen = engine(), []
    results = dict(run.run(requests, seen.append))
    asked = [path for request in requests for path in paths_asked(request)]
    first: Progress = seen[0]
    assert first.sent == sum(map(len, asked))
    assert first.unique == len({path[:n] for path in asked for n in range(1, len(path) + 1)})
    assert [p.computed for p in seen] == sorted(p.computed for p in seen)
    assert seen[-1].sent == run.stats.sent == written_out(requests, [results[i] for i in range(len(requests))])[0]


def paths_asked(request: Request) -> set[tuple[int, ...]]:
    prompt = tuple(request.prompt.tolist())
    if isinstance(request, ScoreRequest):
        return {(*prompt, *choice[:-1].tolist()) for choice in request.continuations}
    return {prompt}


def settled(depth: int, token: int) -> GreedyText:
    """A text of three verified tokens and a stop token, one of whose positions is decided again."""
    text = GreedyText(0, GenerateRequest(ids(1), STOP, 9), 9, [ids(2, 3, 4)], lambda _: b"x")
    for step in (2, 3, 4, min(STOP)):
        text.accept(step, 1.0, -0.5, drafted=step not in STOP)
    text.open = [depth]
    text.settle(depth, token, 0.25, -0.75)
    return text


def test_a_position_that_stands_leaves_the_drafts_verified() -> None:
    """Its lead and its log-probability are those of the canonical shape."""
    text = settled(1, 3)
    assert (text.tokens, text.stopped, text.drafted) == ([2, 3, 4], True, 3)
    assert (text.margin, text.logprob) == (0.25, -0.5 * 3 - 0.75)


def test_a_position_that_is_decided_otherwise_ends_the_drafts_before_it() -> None:
    """What followed is dropped."""
    text = settled(1, 9)
    assert (text.tokens, text.stopped, text.drafted) == ([2, 9], False, 1)
    assert (text.margin, text.logprob) == (0.25, -0.5 - 0.75)


def test_the_last_token_of_a_text_is_computed_for_a_stop_token_only() -> None:
    """Prompt and three tokens where one followed; without it the third is only looked up."""
    text = settled(2, 4)
    assert len(text.computed()) == 4
    text = GreedyText(0, GenerateRequest(ids(1), STOP, 3), 3, [], lambda _: b"x")
    for step in (2, 3, 4):
        text.accept(step, 1.0, -0.5)
    assert (text.finished, len(text.computed())) == (True, 3)


def test_statistics_of_two_parts_are_sums() -> None:
    """Of every count and every second."""
    names = ("sent", "unique", "computed", "checked", "settled", "settle_s", "restored", "cacheable")
    one, other = (RunStats(**{name: factor * (i + 1) for i, name in enumerate(names)}) for factor in (1, 10))
    both = one.together(other)
    assert [getattr(both, name) for name in names] == [11 * (i + 1) for i in range(len(names))]
