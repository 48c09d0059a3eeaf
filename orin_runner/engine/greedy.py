"""Exact greedy text for many requests at once.

Texts are decoded token by token, many to a batch: each leaves when it stops and others join, their prompts' prefill
sharing batches with the decode steps of the rest (``decode_round``). A request may name candidate texts. What one that
begins with the text so far has next is computed in the same decode step (``drafts``): wherever the argmax runs down a
candidate to a stop token, one step ends the text.

Where the best two logits lie closer than a near-tie (``noise``), the argmax could depend on the shape of the batch.
Such a position is computed again in the canonical shape, so that neither the plan nor the candidates can decide the
text. Decoding does not wait for that: it goes on with the argmax, which nearly always stands, and what followed another
token is dropped afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np

from orin_runner.batching.packer import Budget
from orin_runner.batching.tree import TokenTree
from orin_runner.batching.wanted_rows import WantedRows
from orin_runner.engine.decode_round import DecodeRound, RoundRows
from orin_runner.engine.drafts import Drafts
from orin_runner.engine.executor import Executor
from orin_runner.engine.greedy_text import GreedyText
from orin_runner.engine.logits import RowScorer
from orin_runner.engine.noise import TEXT_ROWS, KeptRows, TextNoise, n_text_rows
from orin_runner.engine.prompt_cache import PromptCache


class Greedy:
    """Finishes greedy texts.

    Args:
        executors: where to compute; near-ties are settled on the first.
        budget: limits of one decode call, and of one executor's cache.
        noise: what the run has shown of it so far; where that is nothing, the first round adds to it.
        scorer: threads for the row work.
        cache: states of shared prefixes to restore instead of computing them, and to keep.
        on_batch: called behind the texts that each batch finishes.

    Attributes:
        settled: positions that were computed again in the canonical shape.
        settle_s: seconds that these took, and the rows that the noise was measured on.
    """

    def __init__(
        self,
        executors: Sequence[Executor],
        budget: Budget,
        noise: TextNoise,
        scorer: RowScorer,
        cache: PromptCache | None,
        on_batch: Callable[[], None],
    ) -> None:
        self._executors, self._budget, self._noise = executors, budget, noise
        self._scorer, self._cache, self._on_batch = scorer, cache, on_batch
        self._drafts = Drafts()
        self._lanes: list[DecodeRound] = []
        self._others: list[GreedyText] = []  # wait for the end of the first round
        self.settled = 0
        self.settle_s = 0.0

    def finish(self, texts: Sequence[GreedyText], tree: TokenTree) -> Iterator[GreedyText]:
        """Decode until every text is finished; yields each when it is. The caches must be empty.

        Args:
            texts: none of them begun.
            tree: of their prompts, in their order.
        """
        measured = bool(self._noise.found.n)
        waiting = list(texts) if measured else (yield from self._first_round(texts, tree))
        while waiting:
            unsure: list[GreedyText] = []
            left_out: list[GreedyText] = []
            for text in self._round(waiting, left_out):
                if text.open:
                    unsure.append(text)
                else:
                    yield text
            yield from self._settle(unsure, left_out)
            self._on_batch()
            waiting = left_out

    def give_back(self, share: float) -> list[GreedyText]:
        """Leave texts to others that have not begun, about ``share`` of them; called between batches."""
        kept = len(self._others) - round(share * len(self._others))
        given, self._others = self._others[kept:], self._others[:kept]
        return [*given, *(text for lane in self._lanes for text in lane.give_back(share))]

    def _first_round(
        self, texts: Sequence[GreedyText], tree: TokenTree
    ) -> Generator[GreedyText, None, list[GreedyText]]:
        """Decode on probation as many as run side by side: what the noise is shows only afterwards.

        Returns:
            The texts that are not finished.
        """
        some, self._others = self._side_by_side(texts, tree)
        kept = RoundRows(KeptRows(), KeptRows())
        waiting: list[GreedyText] = []
        ended = list(self._round(some, waiting, kept, None if self._others else tree))
        before = time.perf_counter()
        n = n_text_rows(len(some))
        self._noise.measure([*kept.prompts.spread(n), *kept.steps.spread(n)])
        self.settle_s += time.perf_counter() - before
        for text in [*ended, *waiting]:
            text.open_below(self._noise.near_tie)
        unsure = [text for text in [*ended, *waiting] if text.open]
        waiting = [text for text in waiting if not text.open] + self._others
        self._others = []
        yield from (text for text in ended if not text.open)
        yield from self._settle(unsure, waiting)
        self._on_batch()
        return waiting

    def _side_by_side(self, texts: Sequence[GreedyText], tree: TokenTree) -> tuple[list[GreedyText], list[GreedyText]]:
        """The texts whose prompts fit into the caches together, at least a few, and the others, in the tree's order.

        Where all do they stay in their own order, which is that of the tree's input.
        """
        order = np.argsort(tree.index, kind="stable")
        prompts = tree.starts[tree.index[order] + 1]  # unique tokens of all prompts up to each text's own
        fitting = int(np.count_nonzero(prompts <= len(self._executors) * self._budget.n_cells))
        n_some = max(TEXT_ROWS, fitting)
        if n_some >= len(texts):
            return list(texts), []
        in_order = [texts[i] for i in order]
        return in_order[:n_some], in_order[n_some:]

    def _settle(self, unsure: Sequence[GreedyText], left_out: list[GreedyText]) -> list[GreedyText]:
        """Decide every open position in the canonical shape; what is finished then. The others go to ``left_out``."""
        before = time.perf_counter()
        wanted = [(text.prefix(depth), text, depth) for text in unsure for depth in text.open]
        # Any order that brings common beginnings together will do. A text's own positions come in the order of their
        # depth, as a prefix stands before what it begins.
        wanted.sort(key=lambda item: item[0].tobytes())
        rows = self._executors[0].canonical_rows([prefix for prefix, _, _ in wanted])
        for (_, text, depth), row in zip(wanted, rows, strict=True):
            # A position that an earlier one of the same text has overturned is dropped.
            if depth in text.open:
                facts = self._scorer.facts(row[None, :])
                text.settle(depth, int(facts.best[0]), float(facts.lead[0]), float(facts.top[0]))
        self.settled += len(wanted)
        self.settle_s += time.perf_counter() - before
        left_out += [text for text in unsure if not text.finished]
        return [text for text in unsure if text.finished]

    def _round(
        self,
        texts: Sequence[GreedyText],
        left_out: list[GreedyText],
        kept: RoundRows | None = None,
        tree: TokenTree | None = None,
    ) -> Iterator[GreedyText]:
        """Decode ``texts``, none of them finished; yields those that come to an end, some with positions to settle.

        Args:
            texts: what to decode.
            left_out: receives those that had to leave for lack of cells.
            kept: receives rows to measure the noise on.
            tree: of their prompts, if it is at hand.
        """
        lanes = self._lanes = self._divided(texts, kept, tree)
        for lane in lanes:
            lane.submit()
        while any(lane.busy for lane in lanes):
            for lane in lanes:
                if lane.busy:
                    ended = lane.read()
                    lane.submit()
                    yield from ended
                    self._on_batch()
        for executor in self._executors:
            executor.backend.clear()
        self._lanes = []
        for lane in lanes:
            left_out += lane.left_out

    def _divided(
        self, texts: Sequence[GreedyText], kept: RoundRows | None, tree: TokenTree | None
    ) -> list[DecodeRound]:
        """The texts on one context or, where the tree can be divided, on several."""
        if tree is None:
            tree = TokenTree([text.prefix() for text in texts])
        last = np.array([len(path) - 1 for path in tree.paths], dtype=np.int64)
        parts = WantedRows(tree, np.arange(len(texts)), last[tree.index]).divide(
            len(self._executors), window=self._executors[0].backend.n_swa, with_bases=self._cache is not None
        )
        owners: list[list[GreedyText]] = [[] for _ in tree.paths]
        for text, path in zip(texts, tree.index.tolist(), strict=True):
            owners[path].append(text)
        lanes = []
        for executor, part in zip(self._executors, parts, strict=False):
            executor.backend.clear()
            own = owners[part.first_path : part.first_path + len(part.tree.paths)]
            budget, scorer, drafts, near_tie = self._budget, self._scorer, self._drafts, self._noise.near_tie
            lanes.append(DecodeRound(executor, budget, scorer, part, own, drafts, near_tie, self._cache, kept))
        return lanes
