"""The mirror of the cache is the cache: after every batch of a round, with texts held, running and giving way."""

from __future__ import annotations

import random

import numpy as np
import pytest
from fake_llama import FakeContext
from test_engine import generate_requests

from orin_runner.decoding import Decoding
from orin_runner.engine import Engine
from orin_runner.planner import Budget


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
    original, used = Decoding.submit, []

    def submit(self: Decoding) -> None:
        original(self)
        cells = self._cells
        cells.check_integrity()
        assert cells.used == np.count_nonzero(context.position >= 0)
        used.append(cells.used)

    monkeypatch.setattr(Decoding, "submit", submit)
    for _ in Engine([context], budget, n_chunk=4, n_positions=longest).run(requests):
        pass
    assert max(used) > 0
    assert used[-1] == 0
