"""One pass over the token tree of a run: every unique token computed once, every probe answered.

A probe asks one thing of one row: the log-probability of a token after a prefix (path and position). While the device
computes a batch, the host fills the next one and turns the rows of the one before into numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt

from orin_runner.batch import BatchBuilder
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

    Attributes:
        tree: the prefix tree.
        row_of: int64 ``[k]``, each probe's row in ``facts``.
        facts: argmax, lead and log-sum-exp of every row.
    """

    def __init__(self, paths: Sequence[Tokens], probe_path: Int64, probe_position: Int64, probe_token: Int64) -> None:
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
        self.facts = RowFacts(len(self._outputs))

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
        decoder: Decoder,
        budget: Budget,
        scorer: RowScorer,
        keep_rows: dict[int, npt.NDArray[np.float32]],
        cache: PromptCache | None = None,
    ) -> Iterator[tuple[int, Int64]]:
        """Compute everything.

        Args:
            decoder: where to compute; its cache is empty before and after.
            budget: limits of one decode call.
            scorer: threads for the row work.
            keep_rows: its keys name rows of ``facts``; receives copies of those rows.
            cache: states of shared prefixes to restore instead of computing them, and to keep.

        Yields:
            (tokens computed since the last yield, indices of the probes answered since then), batch by batch.
        """
        decoder.backend.clear()
        cells = KVCells(budget.n_cells, budget.n_seq, self.tree.n_unique)
        bases = None if cache is None else self.bases(decoder.backend.n_swa)
        planner = Planner(self.tree, self._outputs, budget, cells, bases=bases)
        # Rows of up to two batches are in flight on the scoring threads.
        scoring: deque[tuple[tuple[int, int, int], npt.NDArray[np.float32], list[Future[None]]]] = deque()
        running: tuple[int, int, int] | None = None  # (first row, rows, tokens) of the batch on the device
        while running is not None or not planner.done:
            batch = None
            if not planner.done:
                if cache is not None:
                    _restore(planner, decoder, cache)
                builder = BatchBuilder()
                planner.fill(builder, budget.n_batch, budget.n_outputs, budget.n_seq)
                batch = builder.build()
                decoder.prepare(batch)
            rows = None
            if running is not None:
                rows = scorer.snapshot(decoder.rows(running[1])) if running[1] else decoder.rows(0)
            finished, running = running, None
            if batch is not None:
                first_row = 0 if finished is None else finished[0] + finished[1]
                decoder.submit(batch)
                running = (first_row, batch.n_outputs, len(batch.tokens))
                if cache is not None:
                    _save(planner, decoder, cache)
            if finished is not None and rows is not None:
                scoring.append((finished, rows, self._score(scorer, finished[0], rows)))
                for row in keep_rows:
                    if finished[0] <= row < finished[0] + finished[1]:
                        keep_rows[row] = rows[row - finished[0]].copy()
            while scoring and (len(scoring) > 2 or running is None):
                done, rows, futures = scoring.popleft()
                answered = self._collect(done[0], done[1], futures)
                scorer.recycle(rows)
                yield done[2], answered

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

    def _collect(self, first_row: int, n_rows: int, futures: list[Future[None]]) -> Int64:
        for future in futures:
            future.result()
        low, high = np.searchsorted(self._sorted_rows, [first_row, first_row + n_rows])
        answered: Int64 = self._order[low:high]
        return answered


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
