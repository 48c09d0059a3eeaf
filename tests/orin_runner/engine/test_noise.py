"""The noise of a run: what it is measured on, what it says of margins, and rows that hold no numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from orin_runner.batching.packer import Budget
from orin_runner.engine.engine import Engine
from orin_runner.engine.executor import Executor, Rows
from orin_runner.engine.noise import (
    LEAST_RMS,
    MOST_SCORE_SHARE,
    NOISES_OF_A_SCORE,
    SCORE_PATHS,
    SCORE_PATHS_ENOUGH,
    WIDER,
    paths_to_check,
)
from orin_runner.requests import NOT_FINITE, Failed, Generated, GenerateRequest, Scored, ScoreRequest, Tokens
from orin_runner.runner import Noise
from tests.support.engine_cases import N_VOCAB, answers, generate_requests, log_softmax, score_requests
from tests.support.fake_llama import FakeContext, reference

JITTER = 0.05


def items(n: int, longest: int = 12) -> list[ScoreRequest]:
    """Four choices of up to ``longest`` tokens after a prompt of ten."""
    rng = np.random.default_rng(n)
    return [
        ScoreRequest(
            rng.integers(0, N_VOCAB, 10).astype(np.int32),
            tuple(rng.integers(0, N_VOCAB, rng.integers(1, longest + 1)).astype(np.int32) for _ in range(4)),
        )
        for _ in range(n)
    ]


def engine(jitter: float, *, n_outputs: int = 64) -> Engine:
    context = FakeContext(512, n_batch=64, n_outputs=n_outputs, jitter=jitter)
    return Engine([context], Budget(512, 64, 64, n_outputs), n_chunk=16, n_positions=64)


@pytest.mark.parametrize("n_outputs", [64, 5])
def test_the_noise_of_scores_is_that_of_whole_answers(n_outputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wanted token of the paths that are computed again, or the last ones that fit into a call, and no other."""
    again: list[tuple[Tokens, Rows]] = []
    rows_alone = Executor.rows_alone

    def spy(self: Executor, paths: Sequence[Tokens], n_last: Sequence[int]) -> Iterator[Rows]:
        for path, rows in zip(paths, rows_alone(self, paths, n_last), strict=True):
            again.append((path, rows))
            yield rows

    monkeypatch.setattr(Executor, "rows_alone", spy)
    requests = items(100)
    runner = engine(JITTER, n_outputs=n_outputs)
    said = {}
    for request, result in zip(requests, answers(runner, requests), strict=True):
        assert isinstance(result, Scored)
        for choice, logprobs in zip(request.continuations, result.logprobs, strict=True):
            said[(*request.prompt.tolist(), *choice[:-1].tolist())] = (choice, logprobs)
    differences = []
    for path, rows in again:
        choice, logprobs = said[tuple(path.tolist())]
        n = min(len(choice), n_outputs)
        assert len(rows) == n
        alone = [log_softmax(row)[token] for row, token in zip(rows, choice[-n:], strict=True)]
        differences += (logprobs[-n:] - np.array(alone)).tolist()
    noise = runner.stats.score_noise
    assert SCORE_PATHS_ENOUGH <= len(again) <= SCORE_PATHS
    assert noise.n == len(differences)
    assert noise.rms == pytest.approx(np.sqrt(np.mean(np.square(differences))), rel=1e-4)
    assert noise.largest == pytest.approx(np.abs(differences).max(), rel=1e-4)
    assert noise.near_tie == pytest.approx(NOISES_OF_A_SCORE * noise.rms)
    assert runner.stats.text_noise == Noise()
    assert runner.stats.checked == sum(len(path) for path, _ in again)


def test_margins_move_by_less_than_their_near_tie() -> None:
    """By what the root of the number of their tokens makes of it; one token's near-tie would not do."""
    requests = items(300, longest=20)
    runner = engine(JITTER)
    beyond_one_token = 0
    for request, result in zip(requests, answers(runner, requests), strict=True):
        assert isinstance(result, Scored)
        sums = np.array([logprobs.sum() for logprobs in result.logprobs])
        best, second = np.argsort(-sums)[:2]
        exact = [exact_sum(request, choice) for choice in (best, second)]
        moved = abs((sums[best] - sums[second]) - (exact[0] - exact[1]))
        tokens = len(request.continuations[best]) + len(request.continuations[second])
        assert moved < runner.stats.score_noise.near_tie * np.sqrt(tokens)
        beyond_one_token += moved > runner.stats.score_noise.near_tie
    assert beyond_one_token > 0


def exact_sum(request: ScoreRequest, choice: int) -> float:
    tokens, total = request.prompt.tolist(), 0.0
    for token in request.continuations[choice].tolist():
        total += log_softmax(reference(tokens, N_VOCAB))[token]
        tokens.append(token)
    return total


def test_exact_arithmetic_has_the_least_noise() -> None:
    runner = engine(0.0)
    answers(runner, items(100))
    assert runner.stats.score_noise.largest < 1e-6
    assert runner.stats.score_noise.near_tie == NOISES_OF_A_SCORE * LEAST_RMS


def test_paths_are_spread_and_within_the_allowance() -> None:
    """As many as a share of the unique tokens pays for, eight if a larger share does, none twice."""
    lengths = np.full(10_000, 100)
    assert len(paths_to_check(lengths, 10**7)) == SCORE_PATHS
    assert len(paths_to_check(lengths, 400_000)) == 10, "1,000 tokens"
    few = paths_to_check(lengths, 16_000)
    assert len(set(few)) == SCORE_PATHS_ENOUGH
    assert max(few) - min(few) > 8_000
    assert len(paths_to_check(lengths, 15_900)) == 7, "795 tokens"


@pytest.mark.parametrize("n", [1, 2, 8, 24, 100, 300, 1000])
@pytest.mark.parametrize("shared", [0, 200])
def test_the_check_costs_a_twentieth_or_one_path(n: int, shared: int) -> None:
    """Of paths between 20 and 300 tokens that have none or most of them in common; one path: the median."""
    rng = np.random.default_rng(n)
    lengths = shared + rng.integers(20, 100, n)
    n_unique = int(shared + (lengths - shared).sum())
    picked = paths_to_check(lengths, n_unique)
    assert len(picked) == len(set(picked)) >= 1
    cost = int(lengths[picked].sum())
    assert cost <= MOST_SCORE_SHARE * n_unique or (len(picked) == 1 and cost == np.sort(lengths)[n // 2])
    assert len(picked) >= SCORE_PATHS_ENOUGH or n < 1000


def test_short_paths_do_not_stand_for_long_ones() -> None:
    """40 of 10 tokens and 40 of 2,000, most of them shared: where the long ones cost too much the sample is small."""
    lengths = np.random.default_rng(1).permutation([10, 2_000] * 40)
    assert len(paths_to_check(lengths, 3_200)) < SCORE_PATHS_ENOUGH
    assert len(paths_to_check(np.sort(lengths), 3_200)) < SCORE_PATHS_ENOUGH
    assert lengths[paths_to_check(lengths, 320_000)].max() == 2_000


def test_fewer_paths_make_a_wider_near_tie() -> None:
    """So that a small sample that comes out too small is as rare as with eight paths: drawn, one time in ten."""
    rng = np.random.default_rng(1)
    rms = {n: np.sqrt((rng.standard_normal((200_000, n)) ** 2).mean(axis=1)) for n in range(1, SCORE_PATHS_ENOUGH + 1)}
    enough = np.quantile(rms[SCORE_PATHS_ENOUGH], 0.1)
    for n, wider in WIDER.items():
        assert wider * np.quantile(rms[n], 0.1) == pytest.approx(enough, rel=0.05)
    assert sorted(WIDER) == list(range(1, SCORE_PATHS_ENOUGH))


def test_a_small_run_says_a_wider_near_tie() -> None:
    """Six items: five hundredths of their tokens pay for no path, so one is computed again."""
    runner = engine(JITTER)
    answers(runner, items(6))
    noise = runner.stats.score_noise
    assert 0 < runner.stats.checked <= 22
    assert noise.near_tie == pytest.approx(WIDER[1] * NOISES_OF_A_SCORE * noise.rms)


@pytest.mark.parametrize("n_engines", [2, 4, 8])
@pytest.mark.parametrize(("n_unique", "n_paths"), [(10**7, SCORE_PATHS), (20_000, SCORE_PATHS_ENOUGH)])
def test_engines_that_share_a_run_measure_what_one_would(n_engines: int, n_unique: int, n_paths: int) -> None:
    lengths = np.full(1000 // n_engines, 100)
    each = paths_to_check(lengths, n_unique // n_engines, n_engines)
    assert len(each) * n_engines == n_paths


class Overflows(FakeContext):
    """Rows after token 7 hold ``value`` where a number should be."""

    value = np.nan

    def logits(self, n: int) -> npt.NDArray[np.float32]:
        rows = super().logits(n)
        rows[self.lost] = self.value
        return rows

    def _visible(self, seq: int, position: int) -> list[tuple[int, int]]:
        seen = super()._visible(seq, position)
        self.found.append(any(token == 7 for _, token in seen))
        return seen

    def submit(self, batch: object) -> None:
        self.found: list[bool] = []
        super().submit(batch)  # type: ignore[arg-type]
        self.lost = np.array(self.found, dtype=bool)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("seed", range(10))
def test_what_is_not_finite_fails_alone(seed: int, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores and texts whose rows hold no numbers fail with the reason; the others are what they are without them."""
    monkeypatch.setattr(Overflows, "value", value)
    rng = random.Random(seed)
    seven = np.array([7], dtype=np.int32)
    requests = [*score_requests(rng, 20), *generate_requests(rng, 20, 0)]
    requests += [ScoreRequest(seven, (seven,)), GenerateRequest(seven, frozenset(), 3, (seven,))]
    longest = 80
    budget = Budget(1024, 32, 64, 64)
    found = answers(Engine([Overflows(1024, n_batch=32)], budget, n_chunk=4, n_positions=longest), requests)
    sound = answers(Engine([FakeContext(1024, n_batch=32)], budget, n_chunk=4, n_positions=longest), requests)
    failed = 0
    for request, result, expected in zip(requests, found, sound, strict=True):
        if isinstance(result, Failed):
            failed += 1
            assert result.reason == NOT_FINITE
        assert isinstance(result, Failed) is reaches_seven(request, expected)
        if isinstance(result, Scored):
            assert isinstance(expected, Scored)
            assert np.concatenate(result.logprobs) == pytest.approx(np.concatenate(expected.logprobs))
        elif isinstance(result, Generated):
            assert isinstance(expected, Generated)
            assert result.tokens.tolist() == expected.tokens.tolist()
    assert 2 <= failed < len(requests)


def reaches_seven(request: ScoreRequest | GenerateRequest, expected: Scored | Generated | Failed) -> bool:
    """Whether a row that the answer takes follows token 7."""
    if isinstance(request, ScoreRequest):
        return any(7 in [*request.prompt, *choice[:-1]] for choice in request.continuations)
    assert isinstance(expected, Generated)
    read = expected.tokens if expected.stopped else expected.tokens[:-1]
    return 7 in [*request.prompt, *read]


def test_samples_are_put_together() -> None:
    one, other = Noise(1, 1.0, 1.0, 6.0), Noise(3, 2.0, 3.0, 5.0)
    both = one.together(other)
    assert replace(both, rms=0.0) == Noise(4, 0.0, 3.0, 6.0)
    assert both.rms == pytest.approx(np.sqrt((1 + 3 * 4) / 4))
    assert Noise().together(one) == one


def test_a_run_that_goes_on_measures_nothing_again() -> None:
    """Its texts are settled by the noise that is known: they are those of one run, with nothing measured twice."""
    rng = random.Random(6)
    requests = [*score_requests(rng, 60), *generate_requests(rng, 60, 0)]
    whole = answers(engine(JITTER), requests)
    runner = engine(JITTER)
    first, second = [*requests[:30], *requests[60:90]], [*requests[30:60], *requests[90:]]
    found = [*answers(runner, first)]
    measured = runner.stats
    assert measured.score_noise.n > 0
    assert measured.text_noise.n > 0
    found += [result for _, result in sorted(runner.run(second, goes_on=True), key=lambda item: item[0])]
    again = runner.stats
    assert again.score_noise.n == again.text_noise.n == 0
    # What is checked is what is settled: positions whose lead rounding could turn.
    assert (again.checked > 0) == (again.settled > 0)
    assert again.settled > 0
    order = [*range(30), *range(60, 90), *range(30, 60), *range(90, 120)]
    for i, result in zip(order, found, strict=True):
        expected = whole[i]
        if isinstance(expected, Generated):
            assert isinstance(result, Generated)
            assert result.tokens.tolist() == expected.tokens.tolist()
    answers(runner, first)
    assert runner.stats.score_noise.n == measured.score_noise.n
