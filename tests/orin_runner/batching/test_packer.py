"""The packer under every budget, against a fake that keeps llama.cpp's rules."""

from __future__ import annotations

import random

import numpy as np
import pytest

from orin_runner.batching import packer as packer_module
from orin_runner.batching.batch import BatchBuilder
from orin_runner.batching.kv_cells import KVCells
from orin_runner.batching.packer import IDS_BESIDE_PATHS, Budget, Packer
from orin_runner.batching.tree import TokenTree
from orin_runner.engine.executor import Executor
from tests.support.fake_llama import FakeContext, reference
from tests.support.trees import random_paths


@pytest.mark.parametrize("window", [0, 8, 64])
@pytest.mark.parametrize("seed", range(40))
def test_any_budget_gives_the_answers_of_single_sequences(
    seed: int, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random trees and budgets, down to a cache of exactly the longest path, with holes left by other sequences."""
    rng = random.Random(1000 * window + seed)
    tree = TokenTree(random_paths(rng, rng.randrange(1, 25)))
    asked = [(i, p) for i, path in enumerate(tree.paths) for p in rng.sample(range(len(path)), min(3, len(path)))]
    asked.sort()
    where = tree.locate(np.array([i for i, _ in asked]), np.array([p for _, p in asked]))
    outputs = np.unique(where)
    holes = rng.choice([0, 7])
    budget = Budget(
        n_cells=max(max(map(len, tree.paths)) + holes + rng.choice([0, 1, 5, 100]), 2 * holes),
        n_batch=rng.choice([1, 3, 16, 64]),
        n_seq=rng.choice([IDS_BESIDE_PATHS + 3, 12, 256]),
        n_outputs=rng.choice([1, 4, 64]),
    )
    monkeypatch.setattr(packer_module, "MAX_SHARED_PAIRS", rng.choice([0, 10, 10_000]))
    context = FakeContext(
        budget.n_cells, budget.n_seq, budget.n_batch, rng.choice([1, 4, 512]), budget.n_outputs, window
    )
    executor = Executor(context)
    cells = KVCells(budget.n_cells, budget.n_seq, tree.n_unique)
    foreign = _leave_holes(executor, cells, holes) if holes else None
    before = context.computed
    packer = Packer(tree, outputs, budget, cells)
    rows = {}
    while not packer.done:
        builder = BatchBuilder()
        first = packer.position
        retained = packer.fill(builder, budget.n_batch, budget.n_outputs, budget.n_seq)
        assert retained is not None, "nothing fits, and nothing ever will"
        batch = builder.build()
        executor.prepare(batch)
        executor.submit(batch)
        cells.check_integrity()
        if not window:
            assert cells.used == context.used()
        flagged = np.flatnonzero(batch.outputs) + first
        rows.update(zip(flagged.tolist(), executor.rows(batch.n_outputs), strict=True))
    assert context.computed - before == tree.n_unique
    if foreign is not None:
        assert context.span(foreign) == (0, holes - 1)
    for (i, p), index in zip(asked, where.tolist(), strict=True):
        expected = reference(tree.paths[i][: p + 1].tolist(), context.n_vocab, window)
        assert np.array_equal(rows[index], expected), f"path {i}, position {p}"


def _leave_holes(executor: Executor, cells: KVCells, n: int) -> int:
    """Fill ``2 n`` cells with two pinned sequences in turn and free one of them; returns the one that stays."""
    stays, goes = [(cells.new_seq(), cells.new_seq()) for _ in range(2)]
    for position in range(n):
        for owner, pin in (stays, goes):
            builder = BatchBuilder()
            builder.share(builder.add(np.array([4], dtype=np.int32), position, owner), 1, position, pin)
            handle = cells.new_handles(1)
            cells.extend(owner, handle, handle + 1)
            cells.extend(pin, handle, handle + 1)
            executor.submit(builder.build())
    for seq in goes:
        cells.release(seq)
        executor.backend.cut(seq, 0)
    return stays[0]


def test_batches_are_full_except_the_last() -> None:
    """With cells to spare, every decode call but the last computes ``n_batch`` tokens."""
    tree = TokenTree(random_paths(random.Random(3), 200, longest=40, vocabulary=50))
    budget = Budget(n_cells=2000, n_batch=64, n_seq=256, n_outputs=64)
    cells = KVCells(budget.n_cells, budget.n_seq, tree.n_unique)
    packer = Packer(tree, np.empty(0, dtype=np.int64), budget, cells)
    sizes = []
    while not packer.done:
        builder = BatchBuilder()
        packer.fill(builder, budget.n_batch, budget.n_outputs, budget.n_seq)
        sizes.append(builder.n_tokens)
    assert set(sizes[:-1]) == {64}
    assert sum(sizes) == tree.n_unique
    assert cells.used == 0


def test_long_shared_prefixes_become_trunk_instead_of_costing_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch ends where sharing in-batch tokens would cost more (token, id) pairs than allowed."""
    monkeypatch.setattr(packer_module, "MAX_SHARED_PAIRS", 1000)
    trunk = list(range(500))
    tree = TokenTree([np.array([*trunk, 1000 + i, 7], dtype=np.int32) for i in range(100)])
    budget = Budget(n_cells=4096, n_batch=2048, n_seq=256, n_outputs=256)
    cells = KVCells(budget.n_cells, budget.n_seq, tree.n_unique)
    packer = Packer(tree, np.empty(0, dtype=np.int64), budget, cells)
    pairs = []
    while not packer.done:
        builder = BatchBuilder()
        packer.fill(builder, budget.n_batch, budget.n_outputs, budget.n_seq)
        pairs.append(builder.n_pairs - builder.n_tokens)
    # The trunk itself is pinned by holder and pin, which is not sharing between paths.
    assert len(pairs) == 2
    assert pairs[0] <= 1000 + 2 * 502
    assert pairs[1] == 0


def test_unpinned_prefixes_are_lost_behind_a_window() -> None:
    """Why the trunk has two ids: with one, a windowed cache hands its cells out while free ones remain."""
    rng = random.Random(1)
    trunk = np.array([rng.randrange(5) for _ in range(40)], dtype=np.int32)
    outcomes = {}
    for pinned in (False, True):
        context = FakeContext(256, window=8, n_ubatch=512)
        executor = Executor(context)
        builder = BatchBuilder()
        builder.add(trunk, 0, 0)
        if pinned:
            builder.share(0, len(trunk), 0, 1)
        executor.prepare(builder.build())
        executor.submit(builder.build())
        other = BatchBuilder()
        other.add(np.arange(40, dtype=np.int32) % 5, 0, 2)
        executor.submit(other.build())
        context.copy(0, 3, 20)
        outcomes[pinned] = context.span(3)
    assert outcomes == {False: (-1, -1), True: (0, 19)}


def test_a_budget_nothing_fits_into_is_refused() -> None:
    """Zero cells, or too few ids for one path beside the trunks."""
    with pytest.raises(ValueError, match="nothing fits"):
        Budget(n_cells=0, n_batch=1, n_seq=256, n_outputs=1)
    with pytest.raises(ValueError, match="nothing fits"):
        Budget(n_cells=8, n_batch=1, n_seq=IDS_BESIDE_PATHS, n_outputs=1)
