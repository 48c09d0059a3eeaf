"""One pass over the token tree of a run: every unique token computed once, every probe answered.

A probe asks one thing of one row: the log-probability of a token after a prefix (path and position). While the device
computes a batch, the host fills the next one and turns the rows of the one before into numbers. llama.cpp itself needs
some time for a batch before the device gets it, and wants the rows of the last one read first; with two contexts, each
with a half of the tree, the device computes for one meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orin_runner.batching.batch import Batch, BatchBuilder
from orin_runner.batching.kv_cells import KVCells
from orin_runner.batching.packer import Budget, Planner
from orin_runner.batching.wanted_rows import WantedRows
from orin_runner.engine.executor import Decoder, LostPrefixError
from orin_runner.engine.logits import RowFacts, RowScorer
from orin_runner.engine.prompt_cache import PromptCache
from orin_runner.requests import Tokens

Int64 = npt.NDArray[np.int64]


class StreamPass:
    """The tree, the rows it must yield, and what they said.

    Args:
        paths: int32 token paths; duplicates allowed.
        probe_path: int64 ``[k]``, index into ``paths``.
        probe_position: int64 ``[k]``, the row after this position of the path is looked at.
        probe_token: int64 ``[k]``, the token whose log-probability is wanted.

    Attributes:
        tree: the prefix tree.
        row_of: int64 ``[k]``, each probe's row in ``facts``.
        facts: argmax and log-sum-exp of every row.
    """

    def __init__(
        self,
        paths: Sequence[Tokens],
        probe_path: Int64,
        probe_position: Int64,
        probe_token: Int64,
    ) -> None:
        self._wanted = WantedRows(paths, probe_path, probe_position)
        self.tree, self.row_of = self._wanted.tree, self._wanted.row_of
        self._order = np.argsort(self.row_of, kind="stable")
        self._sorted_rows = self.row_of[self._order]
        self._sorted_tokens = probe_token[self._order]
        self._sorted_logprobs = np.full(len(self.row_of), np.nan)
        self._place = np.empty(len(self.row_of), dtype=np.int64)
        self._place[self._order] = np.arange(len(self.row_of))
        self.facts = RowFacts(len(self._wanted.outputs), leads=False)

    def logprobs_of(self, probes: slice) -> npt.NDArray[np.float64]:
        """The answers of a range of probes, float64; NaN where not computed yet."""
        return self._sorted_logprobs[self._place[probes]]

    def run(
        self,
        decoders: Sequence[Decoder],
        budget: Budget,
        scorer: RowScorer,
        keep_rows: dict[int, npt.NDArray[np.float32]],
        cache: PromptCache | None = None,
    ) -> Iterator[Int64]:
        """Compute everything.

        Args:
            decoders: where to compute; their caches are empty before and after. A second one takes half of the tree,
                and they are served in turn: the device computes for one while the host reads and submits for the other.
            budget: limits of one decode call, and of one decoder's cache.
            scorer: threads for the row work.
            keep_rows: its keys name rows of ``facts``; receives copies of those rows.
            cache: states of shared prefixes to restore instead of computing them, and to keep.

        Yields:
            Indices of the probes that each batch answers.
        """
        lanes = self._lanes(decoders, budget, with_bases=cache is not None)
        # Rows of up to two batches are in flight on the scoring threads.
        scoring: deque[tuple[_Submitted, npt.NDArray[np.float32], list[Future[None]]]] = deque()
        while lanes:
            for lane in lanes:
                batch = lane.fill(budget, cache)
                finished, rows = lane.running, None
                if finished is not None:
                    rows = lane.decoder.rows(finished.n_rows)
                    rows = scorer.snapshot(rows, budget.n_outputs) if finished.n_rows else rows
                lane.submit(batch, cache)
                if finished is not None and rows is not None:
                    scoring.append((finished, rows, self._score(scorer, finished.first_row, rows)))
                    for row in keep_rows:
                        if 0 <= row - finished.first_row < finished.n_rows:
                            keep_rows[row] = rows[row - finished.first_row].copy()
                while len(scoring) > 2:
                    yield self._collect(scorer, *scoring.popleft())
            lanes = [lane for lane in lanes if lane.running is not None]
        while scoring:
            yield self._collect(scorer, *scoring.popleft())

    def _lanes(self, decoders: Sequence[Decoder], budget: Budget, *, with_bases: bool) -> list[_Lane]:
        """One lane per decoder that has something to do; the whole tree in the first where two do not pay."""
        middle = self.tree.middle() if len(decoders) > 1 else 0
        parts = self._wanted.parts(middle, window=decoders[0].backend.n_swa, with_bases=with_bases)
        lanes = []
        for decoder, part in zip(decoders, parts, strict=False):
            decoder.backend.clear()
            cells = KVCells(budget.n_cells, budget.n_seq, part.tree.n_unique)
            planner = Planner(part.tree, part.outputs, budget, cells, bases=part.bases)
            lanes.append(_Lane(decoder, planner, part.first_row))
        return lanes

    def _score(self, scorer: RowScorer, first_row: int, rows: npt.NDArray[np.float32]) -> list[Future[None]]:
        low, high = np.searchsorted(self._sorted_rows, [first_row, first_row + len(rows)])
        return scorer.submit(
            rows,
            self.facts,
            first_row,
            self._sorted_rows[low:high] - first_row,
            self._sorted_tokens[low:high],
            self._sorted_logprobs[low:high],
        )

    def _collect(
        self, scorer: RowScorer, batch: _Submitted, rows: npt.NDArray[np.float32], futures: list[Future[None]]
    ) -> Int64:
        """Wait for a batch's rows to be scored; the probes it answers."""
        for future in futures:
            future.result()
        scorer.recycle(rows)
        low, high = np.searchsorted(self._sorted_rows, [batch.first_row, batch.first_row + batch.n_rows])
        return self._order[low:high]


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A batch on the device: its first row in ``facts``, and how many it has."""

    first_row: int
    n_rows: int


@dataclass(slots=True)
class _Lane:
    """A context and the part of the tree it computes.

    Attributes:
        next_row: row of ``facts`` that the next output is.
        running: the batch on the device.
    """

    decoder: Decoder
    planner: Planner
    next_row: int
    running: _Submitted | None = None

    def fill(self, budget: Budget, cache: PromptCache | None) -> Batch | None:
        """The next batch, prepared; None if there is none."""
        if self.planner.done:
            return None
        if cache is not None:
            restore_base(self.planner, self.decoder, cache)
        builder = BatchBuilder()
        self.planner.fill(builder, budget.n_batch, budget.n_outputs, budget.n_seq)
        batch = builder.build()
        self.decoder.prepare(batch)
        return batch

    def submit(self, batch: Batch | None, cache: PromptCache | None) -> None:
        """Start ``batch``; the one before must have been read."""
        self.running = None
        if batch is not None:
            self.decoder.submit(batch)
            self.running = _Submitted(self.next_row, batch.n_outputs)
            self.next_row += batch.n_outputs
            if cache is not None:
                save_base(self.planner, self.decoder, cache)


def restore_base(planner: Planner, decoder: Decoder, cache: PromptCache) -> None:
    """Put the base that comes next into the cache, if its state is on disk."""
    base = planner.base_ahead
    payload = None if base is None else cache.load(base)
    if base is None or payload is None:
        return
    restored = planner.restore()
    if decoder.restore(restored, payload):
        cache.restored_tokens += len(base)
    else:
        raise LostPrefixError(
            "llama.cpp did not take a state that it had saved itself: empty the prompt cache's folder"
        )


def save_base(planner: Planner, decoder: Decoder, cache: PromptCache) -> None:
    """Keep the state of the base that the batch just submitted completes."""
    base = planner.base_complete
    if base is not None and planner.trunk is not None:
        cache.save(base, decoder.state(planner.trunk))
