"""The rates of ``orin-run bench``: what is computed, how often, and what counts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from orin_runner.batching.batch import Batch
from orin_runner.batching.packer import Budget
from orin_runner.engine.bench import CHOICES, MOST_S, NEW_TOKENS, STEPS, Contexts, Pace, Rate, letters, repeated, texts
from orin_runner.requests import context_tokens
from tests.support.fake_llama import FakeContext
from tests.support.trees import distinct

N_VOCAB = 32


class Counting(FakeContext):
    """Keeps what was submitted."""

    def __init__(self, n_cells: int, window: int) -> None:
        super().__init__(n_cells, window=window, n_vocab=N_VOCAB)
        self.batches: list[Batch] = []

    def submit(self, batch: Batch) -> None:
        super().submit(batch)
        self.batches.append(batch)

    @property
    def tokens(self) -> int:
        return sum(len(batch.tokens) for batch in self.batches)


def contexts(n: int, window: int = 0, n_cells: int = 2048) -> tuple[list[Counting], Contexts]:
    backends = [Counting(n_cells, window) for _ in range(n)]
    return backends, Contexts(backends, Budget(n_cells, 256, 256, 256), 1)


class TestRepeated:
    """When a rate has been measured often enough."""

    @pytest.mark.parametrize(
        ("pace", "seconds", "runs"),
        [
            (Pace(3, 2.0), 1.0, 3),
            (Pace(3, 2.0), 0.5, 4),
            (Pace(3, 2.0), 0.25, 8),
            (Pace(5, 2.0), 1.0, 5),
            (Pace(1, 0.0), 1.0, 1),
            (Pace(3, 2.0), MOST_S / 2 - 1, 2),
            (Pace(3, 2.0), MOST_S, 1),
        ],
    )
    def test_runs_and_seconds_at_least_and_no_more_when_it_takes_long(
        self, pace: Pace, seconds: float, runs: int
    ) -> None:
        """The first one warms up: here it takes as long, and does half as much."""
        now = 0.0
        calls = 0

        def once() -> float:
            nonlocal now, calls
            now += seconds
            calls += 1
            return 10.0 if calls == 1 else 20.0

        rate = repeated(once, pace, lambda: now)
        assert rate.warm_up == pytest.approx(10 / seconds)
        assert rate.samples == pytest.approx([20 / seconds] * runs)
        assert calls == runs + 1

    def test_mean_and_spread(self) -> None:
        """As llama-bench has them: of n - 1; of one repetition nothing is known."""
        rate = Rate((10.0, 12.0, 14.0), 1.0)
        assert rate.mean == pytest.approx(12)
        assert rate.sd == pytest.approx(2)
        assert Rate((10.0,), 1.0).sd is None
        assert rate.together(Rate((20.0,), 3.0)) == Rate((10.0, 12.0, 14.0, 20.0), 1.0)


class TestWork:
    """What is asked is what few-shot questions ask, at any size."""

    @pytest.mark.parametrize("n_positions", [4096, 100, 24])
    def test_prompts_share_their_beginnings(self, n_positions: int) -> None:
        requests = letters(3, N_VOCAB, n_positions)
        assert max(map(context_tokens, requests)) <= n_positions
        prompts = [request.prompt for request in requests]
        assert distinct(prompts) < 0.7 * sum(map(len, prompts))
        assert all([len(each) for each in request.continuations] == [1] * CHOICES for request in requests)
        assert len({tuple(each.tolist()) for each in prompts}) == len(prompts)

    @pytest.mark.parametrize("n_positions", [4096, 100, 24])
    def test_texts_have_all_their_tokens(self, n_positions: int) -> None:
        requests = texts(2, N_VOCAB, n_positions)
        assert max(map(context_tokens, requests)) <= n_positions
        assert all(request.max_new_tokens == min(NEW_TOKENS, n_positions // 2) for request in requests)
        assert not any(request.stop or request.until for request in requests)


@pytest.mark.parametrize("n", [1, 2, 3])
class TestContexts:
    """What a rate counts is what was computed, and all contexts compute."""

    def test_prompts(self, n: int) -> None:
        backends, found = contexts(n)
        requests = letters(4, N_VOCAB, 60)
        for _ in range(2):
            assert found.score(requests) == distinct([request.prompt for request in requests])
        found.close()
        assert sum(backend.tokens for backend in backends) == 2 * distinct([request.prompt for request in requests])
        assert all(backend.tokens for backend in backends)

    def test_texts(self, n: int) -> None:
        """Every token but a text's last is computed; nothing is computed again, though many leads are small."""
        backends, found = contexts(n)
        requests = texts(4, N_VOCAB, 60)
        counted = found.generate(requests)
        found.close()
        assert counted == sum(backend.tokens for backend in backends)
        assert counted == distinct([request.prompt for request in requests]) + len(requests) * (60 // 2 - 1)
        assert all(backend.tokens for backend in backends)


def test_texts_that_give_way_are_not_counted_twice() -> None:
    """A shape that has too few cells is slower for it, and not faster."""
    backends, found = contexts(1, n_cells=512)
    requests = texts(4, N_VOCAB, 60)
    counted = found.generate(requests)
    found.close()
    assert counted == distinct([request.prompt for request in requests]) + len(requests) * (60 // 2 - 1)
    assert counted < backends[0].tokens


@pytest.fixture(params=[0, 64], ids=["full", "window"])
def single(request: pytest.FixtureRequest) -> Iterator[tuple[Counting, Contexts]]:
    backends, found = contexts(1, window=request.param)
    yield backends[0], found
    found.close()


@pytest.mark.parametrize("n_texts", [1, 8])
def test_decode_steps(single: tuple[Counting, Contexts], n_texts: int) -> None:
    """A token of each text a step, all rows read; a repetition goes on from the same place as the one before."""
    backend, found = single
    found.begin_texts(n_texts, 4096)
    begun = len(backend.batches)
    for _ in range(3):
        assert found.decode(n_texts) == STEPS * n_texts
    steps = backend.batches[begun:]
    assert len(steps) == 3 * STEPS
    assert all(batch.n_outputs == len(batch.tokens) == n_texts for batch in steps)
    first = steps[0].positions[0]
    for k, batch in enumerate(steps):
        assert np.all(batch.positions == first + k % STEPS)
        assert batch.seq_ids.tolist() == list(range(n_texts))


def test_decode_steps_of_a_model_with_few_positions() -> None:
    """Learned positions end where the table does."""
    backends, found = contexts(1)
    found.begin_texts(4, 32)
    found.decode(4)
    found.close()
    assert max(int(batch.positions.max()) for batch in backends[0].batches) < 32
