"""The limit that a run is held against: what is measured."""

from __future__ import annotations

import numpy as np
import pytest

from orin_runner.batching.batch import Batch
from orin_runner.engine.prompt_rate import prompt_rate
from tests.support.fake_llama import FakeContext


class Timed(FakeContext):
    """A device beside a host: the first call takes 100 s, any other ``seconds``; clearing takes the host 0.07 s.

    A call is taken when the one before is done, as llama.cpp takes it, and returns before it is done itself.
    """

    def __init__(self, seconds: float, n: int) -> None:
        super().__init__(n_cells=n, n_batch=n, n_outputs=1)
        self.now = self.ready = 0.0
        self.seconds = seconds
        self.batches: list[Batch] = []

    def clear(self) -> None:
        super().clear()
        self.now += 0.07

    def submit(self, batch: Batch) -> None:
        assert self.used() == 0, "an empty cache"
        super().submit(batch)
        self.now = max(self.now, self.ready)
        self.ready = self.now + (self.seconds if self.batches else 100.0)
        self.batches.append(batch)

    def logits(self, n: int) -> np.ndarray:
        self.now = max(self.now, self.ready)
        return super().logits(n)


@pytest.mark.parametrize(("seconds", "calls"), [(1.0, 4), (0.5, 7), (0.4, 9), (20.0, 3)])
def test_full_batches_until_both_minimums_are_reached(seconds: float, calls: int) -> None:
    """At least three seconds and three calls; the warm-up is not in it, nor what the host does meanwhile."""
    context = Timed(seconds, 48)
    rate = prompt_rate(context, 48, clock=lambda: context.now)
    assert (rate.calls, rate.tokens) == (calls, 48 * calls)
    assert rate.seconds == pytest.approx(0.07 + calls * seconds)
    assert rate.tokens_per_s == pytest.approx(48 * calls / (0.07 + calls * seconds))
    assert rate.to_json()["tokens_per_call"] == 48
    assert context.decodes == calls + 1
    assert context.used() == 0, "what comes next finds an empty cache"
    for batch in context.batches:
        assert batch.positions.tolist() == list(range(48))
        assert set(batch.seq_ids.tolist()) == {0}
        assert batch.outputs.tolist() == [0] * 47 + [1]
        assert batch.tokens.tolist() == context.batches[0].tokens.tolist()
        assert len(set(batch.tokens.tolist())) > 8
