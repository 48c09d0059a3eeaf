"""The prefill of a run's score requests: every unique token computed once, every wanted token answered.

While the device computes a batch, the host fills the next one and turns the rows of the one before into numbers.
llama.cpp itself needs some time for a batch before the device gets it, and wants the rows of the last one read first.
Several contexts, each with a part of the tree, take turns: the device computes for one meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orin_runner.batching.batch import Batch, BatchBuilder
from orin_runner.batching.kv_cells import KVCells
from orin_runner.batching.packer import Budget, Packer
from orin_runner.batching.tree import TokenTree, inside
from orin_runner.batching.wanted_rows import WantedRows
from orin_runner.engine.bases import restore_base, save_base
from orin_runner.engine.executor import Executor, Row
from orin_runner.engine.logits import RowFacts, RowScorer
from orin_runner.engine.prompt_cache import PromptCache
from orin_runner.engine.wanted_tokens import WantedTokens
from orin_runner.requests import Failed, Scored

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

MOST_SCORING = 2
"""Batches whose rows may be on the scoring threads at a time."""


class Prefill:
    """Computes the paths of all score requests.

    Args:
        wanted: the paths, and what is wanted of them.
    """

    def __init__(self, wanted: WantedTokens) -> None:
        self._wanted = wanted
        self._rows = WantedRows(TokenTree(wanted.paths), wanted.path, wanted.position)
        row_of = self._rows.row_of
        # The scoring threads take wanted tokens in the order of their rows.
        self._order = np.argsort(row_of, kind="stable")
        self._sorted_rows = row_of[self._order]
        self._sorted_tokens = wanted.token[self._order]
        self._sorted_logprobs = np.full(len(row_of), np.nan)
        self._logprobs = np.full(len(row_of), np.nan)
        self._best = np.full(len(row_of), -1, dtype=np.int64)
        self._facts = RowFacts(len(self._rows.outputs), leads=False)
        self._lanes: list[_Lane] = []

    @property
    def tree(self) -> TokenTree:
        """The prefix tree of the paths."""
        return self._rows.tree

    def give_back(self, share: float) -> list[int]:
        """Leave requests to others that no batch has begun; called between batches.

        Args:
            share: of the tokens that no batch has.

        Returns:
            Their indices; nothing is yielded for them.
        """
        asking, first, last = self._wanted.spans(self.tree.index)
        barred = np.append(inside(first, last, len(self.tree.paths)), False)
        given: list[int] = []
        for lane in self._lanes:
            at, n = lane.first_path, lane.n_paths
            if barred[at + lane.packer.end]:
                continue  # a request lies on both sides of this lane's end
            paths = lane.packer.give_back(share, barred[at : at + n])
            given += asking[(first >= at + paths.start) & (first < at + paths.stop)].tolist()
        return given

    @property
    def logprobs(self) -> Float64:
        """Natural-log probability of each wanted token, float64; NaN where it is not known."""
        return self._logprobs

    def run(
        self,
        executors: Sequence[Executor],
        budget: Budget,
        scorer: RowScorer,
        cache: PromptCache | None,
        on_batch: Callable[[], None],
    ) -> Iterator[tuple[int, Scored | Failed]]:
        """Compute everything.

        Args:
            executors: where to compute; their caches are empty before and after. Each takes a part of the tree, and
                they are served in turn: the device computes for one while the host reads and submits for another.
            budget: limits of one decode call, and of one executor's cache.
            scorer: threads for the row work.
            cache: states of shared prefixes to restore instead of computing them, and to keep.
            on_batch: called behind the results of each batch.

        Yields:
            (index of the request, its result) as soon as the last of its wanted tokens is answered.
        """
        self._lanes = self._divided(executors, budget, with_bases=cache is not None)
        scoring: deque[_Scoring] = deque()
        while self._lanes:
            for lane in self._lanes:
                batch = lane.fill(budget, cache)
                finished = lane.running
                rows = None if finished is None else self._read(lane.executor, finished, scorer, budget)
                lane.submit(batch, cache)
                if finished is not None and rows is not None:
                    scoring.append(_Scoring(finished, rows, self._score(scorer, finished.first_row, rows)))
                while len(scoring) > MOST_SCORING:
                    yield from self._collect(scorer, scoring.popleft())
                    on_batch()
            self._lanes = [lane for lane in self._lanes if lane.running is not None]
        while scoring:
            yield from self._collect(scorer, scoring.popleft())
            on_batch()

    def _divided(self, executors: Sequence[Executor], budget: Budget, *, with_bases: bool) -> list[_Lane]:
        """One lane per executor that has something to do."""
        parts = self._rows.divide(len(executors), window=executors[0].backend.n_swa, with_bases=with_bases)
        lanes = []
        for executor, part in zip(executors, parts, strict=False):
            executor.backend.clear()
            cells = KVCells(budget.n_cells, budget.n_seq, part.tree.n_unique)
            packer = Packer(part.tree, part.outputs, budget, cells, bases=part.bases)
            lanes.append(_Lane(executor, packer, part.first_path, len(part.tree.paths), part.first_row))
        return lanes

    def _read(self, executor: Executor, batch: _Submitted, scorer: RowScorer, budget: Budget) -> Row:
        """Wait for a batch; its rows, copied where there are any."""
        rows = executor.rows(batch.n_rows)
        return scorer.snapshot(rows, budget.n_outputs) if batch.n_rows else rows

    def _score(self, scorer: RowScorer, first_row: int, rows: Row) -> list[Future[None]]:
        low, high = np.searchsorted(self._sorted_rows, [first_row, first_row + len(rows)])
        return scorer.submit(
            rows,
            self._facts,
            first_row,
            self._sorted_rows[low:high] - first_row,
            self._sorted_tokens[low:high],
            self._sorted_logprobs[low:high],
        )

    def _collect(self, scorer: RowScorer, scoring: _Scoring) -> Iterator[tuple[int, Scored | Failed]]:
        """Wait for a batch's rows to be scored; the requests they complete."""
        for future in scoring.futures:
            future.result()
        scorer.recycle(scoring.rows)
        first, n = scoring.batch.first_row, scoring.batch.n_rows
        low, high = np.searchsorted(self._sorted_rows, [first, first + n])
        answered = self._order[low:high]
        self._logprobs[answered] = self._sorted_logprobs[low:high]
        self._best[answered] = self._facts.best[self._sorted_rows[low:high]]
        for i in self._wanted.complete(answered):
            yield i, self._wanted.result(i, self._logprobs, self._best)


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A batch on the device: its first row of the run, and how many it has."""

    first_row: int
    n_rows: int


@dataclass(frozen=True, slots=True)
class _Scoring:
    """A batch whose rows are on the scoring threads."""

    batch: _Submitted
    rows: Row
    futures: list[Future[None]]


@dataclass(slots=True)
class _Lane:
    """A context and the part of the tree it computes.

    Attributes:
        first_path, n_paths: of the whole tree, those of the part.
        next_row: row of the run that the next output is.
        running: the batch on the device.
    """

    executor: Executor
    packer: Packer
    first_path: int
    n_paths: int
    next_row: int
    running: _Submitted | None = None

    def fill(self, budget: Budget, cache: PromptCache | None) -> Batch | None:
        """The next batch, prepared; None if there is none."""
        if self.packer.done:
            return None
        if cache is not None:
            restore_base(self.packer, self.executor, cache)
        builder = BatchBuilder()
        self.packer.fill(builder, budget.n_batch, budget.n_outputs, budget.n_seq)
        batch = builder.build()
        self.executor.prepare(batch)
        return batch

    def submit(self, batch: Batch | None, cache: PromptCache | None) -> None:
        """Start ``batch``; the one before must have been read."""
        self.running = None
        if batch is not None:
            self.executor.submit(batch)
            self.running = _Submitted(self.next_row, batch.n_outputs)
            self.next_row += batch.n_outputs
            if cache is not None:
                save_base(self.packer, self.executor, cache)
