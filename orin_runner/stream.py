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

from orin_runner.batch import Batch, BatchBuilder
from orin_runner.cells import KVCells
from orin_runner.decoder import Decoder, LostPrefixError
from orin_runner.planner import Budget, Planner
from orin_runner.prompt_cache import MIN_TOKENS, PromptCache
from orin_runner.requests import Tokens
from orin_runner.scoring import RowFacts, RowScorer
from orin_runner.tree import TokenTree

Int64 = npt.NDArray[np.int64]


class StreamPass:
    """The tree, the rows it must yield, and what they said.

    Args:
        paths: int32 token paths; duplicates allowed.
        probe_path: int64 ``[k]``, index into ``paths``.
        probe_position: int64 ``[k]``, the row after this position of the path is looked at.
        probe_token: int64 ``[k]``, the token whose log-probability is wanted.
        leads: work out by how much each row's argmax leads.

    Attributes:
        tree: the prefix tree.
        row_of: int64 ``[k]``, each probe's row in ``facts``.
        facts: argmax, lead and log-sum-exp of every row.
    """

    def __init__(
        self,
        paths: Sequence[Tokens],
        probe_path: Int64,
        probe_position: Int64,
        probe_token: Int64,
        *,
        leads: bool = True,
    ) -> None:
        self.tree = TokenTree(paths)
        path = self.tree.index[probe_path]
        by_path = np.argsort(path, kind="stable")
        where = np.empty(len(path), dtype=np.int64)
        where[by_path] = self.tree.locate(path[by_path], probe_position[by_path])
        self._outputs, self.row_of = np.unique(where, return_inverse=True)
        self._order = np.argsort(self.row_of, kind="stable")
        self._sorted_rows = self.row_of[self._order]
        self._sorted_tokens = probe_token[self._order]
        self._sorted_logprobs = np.full(len(where), np.nan)
        self._place = np.empty(len(where), dtype=np.int64)
        self._place[self._order] = np.arange(len(where))
        self.facts = RowFacts(len(self._outputs), leads=leads)

    def logprobs_of(self, probes: slice) -> npt.NDArray[np.float64]:
        """The answers of a range of probes, float64; NaN where not computed yet."""
        return self._sorted_logprobs[self._place[probes]]

    def bases(self, window: int) -> dict[int, int]:
        """Where a long prefix begins to be shared: path to length, as ``Planner`` takes them.

        A base ends before the first row that is wanted, so that what is restored need not be computed, and within the
        sliding ``window`` (0 for none) of its first token: a longer state would lack the beginning, which the paths
        after these may share.
        """
        lcp, starts = self.tree.lcp, self.tree.starts
        found: dict[int, int] = {}
        begins = np.flatnonzero(lcp < MIN_TOKENS)
        for first, end in zip(begins.tolist(), [*begins.tolist()[1:], len(lcp)], strict=True):
            if end - first < 2:
                continue
            base = min(int(lcp[first + 1 : end].min()), len(self.tree.paths[first]) - 1)
            output = int(np.searchsorted(self._outputs, starts[first]))
            if output < len(self._outputs):
                base = min(base, int(self._outputs[output] - starts[first] + lcp[first]))
            if window:
                base = min(base, window - 1)
            if base >= MIN_TOKENS:
                found[first] = base
        return found

    def run(
        self,
        decoders: Sequence[Decoder],
        budget: Budget,
        scorer: RowScorer,
        keep_rows: dict[int, npt.NDArray[np.float32]],
        cache: PromptCache | None = None,
    ) -> Iterator[tuple[int, Int64]]:
        """Compute everything.

        Args:
            decoders: where to compute; their caches are empty before and after. A second one takes half of the tree,
                and they are served in turn: the device computes for one while the host reads and submits for the other.
            budget: limits of one decode call, and of one decoder's cache.
            scorer: threads for the row work.
            keep_rows: its keys name rows of ``facts``; receives copies of those rows.
            cache: states of shared prefixes to restore instead of computing them, and to keep.

        Yields:
            (tokens computed since the last yield, indices of the probes answered since then), batch by batch.
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
        bounds = [0, middle, len(self.tree.paths)] if middle else [0, len(self.tree.paths)]
        bases = self.bases(decoders[0].backend.n_swa) if with_bases else {}
        lanes = []
        for decoder, first, end in zip(decoders, bounds[:-1], bounds[1:], strict=False):
            decoder.backend.clear()
            tree, before = self.tree.part(first, end)
            low, high = np.searchsorted(self._outputs, self.tree.starts[[first, end]])
            own = {path - first: n for path, n in bases.items() if first <= path < end}
            cells = KVCells(budget.n_cells, budget.n_seq, tree.n_unique)
            planner = Planner(tree, self._outputs[low:high] - before, budget, cells, bases=own)
            lanes.append(_Lane(decoder, planner, int(low)))
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
    ) -> tuple[int, Int64]:
        """Wait for a batch's rows to be scored; its tokens and the probes it answers."""
        for future in futures:
            future.result()
        scorer.recycle(rows)
        low, high = np.searchsorted(self._sorted_rows, [batch.first_row, batch.first_row + batch.n_rows])
        return batch.n_tokens, self._order[low:high]


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A batch on the device: its first row in ``facts``, rows and tokens."""

    first_row: int
    n_rows: int
    n_tokens: int


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
            _restore(self.planner, self.decoder, cache)
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
            self.running = _Submitted(self.next_row, batch.n_outputs, len(batch.tokens))
            self.next_row += batch.n_outputs
            if cache is not None:
                _save(self.planner, self.decoder, cache)


def _restore(planner: Planner, decoder: Decoder, cache: PromptCache) -> None:
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


def _save(planner: Planner, decoder: Decoder, cache: PromptCache) -> None:
    """Keep the state of the base that the batch just submitted completes."""
    base = planner.base_complete
    if base is not None and planner.trunk is not None:
        cache.save(base, decoder.state(planner.trunk))
