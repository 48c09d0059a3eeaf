"""Exact greedy text for many requests at once.

A request that names candidate texts has them verified in the same batches as its prompt: wherever the argmax runs down
a candidate to a stop token, that text is the greedy output and nothing is decoded. Where it leaves every candidate, and
for requests without any, decoding goes on token by token, many requests to a batch: each leaves when it stops and
others join, their prompts' prefill sharing batches with the decode steps of the rest (``decode_round``).

Where the best two logits lie closer than the run's measured noise, the argmax could depend on the shape of the batch.
Such a position is recomputed alone in one canonical shape (``Decoder.alone``), so that neither the plan nor the
candidates can decide the text. Decoding does not wait for that: it goes on with the argmax, which nearly always stands,
and what followed another token is dropped afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from orin_runner.batching.packer import Budget
from orin_runner.batching.tree import TokenTree
from orin_runner.batching.wanted_rows import WantedRows
from orin_runner.engine.decode_round import Decoding, Samples, Text
from orin_runner.engine.executor import Decoder
from orin_runner.engine.greedy_text import Draft
from orin_runner.engine.logits import RowScorer, largest_difference, near_tie
from orin_runner.engine.prompt_cache import PromptCache
from orin_runner.requests import Tokens

Row = npt.NDArray[np.float32]
Key = TypeVar("Key")

SAMPLES = 8
"""Rows of the first round that are computed again, alone, to measure the noise: half of them rows of prompts and
candidates, half of decode steps, whose batches have other shapes ..."""
SAMPLED_SHARE = 1 / 8
"""... and of a short run's texts no more than this share, though at least half of ``SAMPLES``."""


class Greedy:
    """Finishes drafts.

    Args:
        decoders: where to compute, one or two; texts are decided alone on the first.
        budget: limits of one decode call, and of one decoder's cache.
        n_chunk: chunk length of the canonical shape.
        noise: largest difference of any log-probability seen so far between the run's shapes and the canonical one.
        scorer: threads for the row work.
        cache: states of shared prefixes to restore instead of computing them, and to keep.

    Attributes:
        noise: as given, or what the first round has shown if that is more. A lead below ``near_tie`` of it is settled.
        n_samples: rows of the first round that this was measured on.
        settled: positions that were recomputed alone.
        settle_s: seconds that these and the samples took.
    """

    def __init__(
        self,
        decoders: Sequence[Decoder],
        budget: Budget,
        n_chunk: int,
        noise: float,
        scorer: RowScorer,
        cache: PromptCache | None = None,
    ) -> None:
        self._decoders = decoders
        self._budget = budget
        self._n_chunk = n_chunk
        self.noise = noise
        self._scorer = scorer
        self._cache = cache
        self.n_samples = 0
        self.settled = 0
        self.settle_s = 0.0

    def finish(self, drafts: Sequence[Draft]) -> Iterator[list[Draft]]:
        """Decode until every draft is finished; yields, batch by batch, those that are. The caches must be empty."""
        waiting = yield from self._first_round(list(drafts))
        while waiting:
            unsure: list[Draft] = []
            waiting = yield from self._round(waiting, unsure, None)
            yield self._settled(unsure, waiting)

    def _first_round(self, drafts: list[Draft]) -> Generator[list[Draft], None, list[Draft]]:
        """Decode on probation as many as run side by side: what the noise is shows only afterwards."""
        tree = TokenTree([draft.prefix() for draft in drafts])
        in_order = sorted(zip(tree.index.tolist(), drafts, strict=True), key=lambda item: item[0])
        most = len(self._decoders) * self._budget.n_cells
        n_some = max(SAMPLES, sum(bool(tree.starts[path + 1] <= most) for path, _ in in_order))
        some, others = [[draft for _, draft in part] for part in (in_order[:n_some], in_order[n_some:])]
        samples = (Samples(), Samples())
        ended: list[Draft] = []
        waiting = yield from _held_back(self._round(some, ended, samples), ended)
        self._measure(samples, len(some))
        for draft in [*ended, *waiting]:
            draft.open = [at for at, (_, lead, _) in enumerate(draft.steps) if lead < near_tie(self.noise)]
        unsure = [draft for draft in [*ended, *waiting] if draft.open]
        waiting = [draft for draft in waiting if not draft.open] + others
        yield [draft for draft in ended if not draft.open] + self._settled(unsure, waiting)
        return waiting

    def _measure(self, samples: Sequence[Samples], n_texts: int) -> None:
        """The noise of some of the rows that were kept."""
        started = time.perf_counter()
        n = max(SAMPLES // 2, min(SAMPLES, round(SAMPLED_SHARE * n_texts))) // 2
        spread = [kept for kind in samples for kept in kind.spread(n)]
        for seen, row in self._alone(spread):
            self.noise = max(self.noise, largest_difference(row, seen))
        self.n_samples = len(spread)
        self.settle_s += time.perf_counter() - started

    def _settled(self, unsure: Sequence[Draft], waiting: list[Draft]) -> list[Draft]:
        """Decide every open position in the canonical shape; what is finished then. The others go to ``waiting``."""
        started = time.perf_counter()
        wanted = [((draft, depth), draft.prefix(depth)) for draft in unsure for depth in draft.open]
        for (draft, depth), row in self._alone(wanted):
            # A position that an earlier one of the same draft has overturned is dropped.
            if depth in draft.open:
                facts = self._scorer.facts(row[None, :])
                draft.settle(depth, int(facts.best[0]), float(facts.lead[0]), float(facts.top[0]))
        self.settled += len(wanted)
        self.settle_s += time.perf_counter() - started
        waiting += [draft for draft in unsure if not draft.finished]
        return [draft for draft in unsure if draft.finished]

    def _alone(self, wanted: list[tuple[Key, Tokens]]) -> Iterator[tuple[Key, Row]]:
        """The rows after prefixes, in the canonical shape; a draft's own in the order of their depth."""
        # Any order that brings common beginnings together will do, and a prefix stands before what it begins.
        ordered = sorted(wanted, key=lambda item: item[1].tobytes())
        rows = self._decoders[0].each_alone([prefix for _, prefix in ordered], self._n_chunk)
        yield from ((key, row) for (key, _), row in zip(ordered, rows, strict=True))

    def _round(
        self, drafts: Sequence[Draft], unsure: list[Draft], samples: tuple[Samples, Samples] | None
    ) -> Generator[list[Draft], None, list[Draft]]:
        """Decode ``drafts``; yields what each batch finishes, returns those that had to leave for lack of cells.

        Args:
            drafts: none of them finished.
            unsure: receives those that came to an end with positions to settle.
            samples: receives rows of prompts and of decode steps.
        """
        lanes = self._lanes(drafts, samples)
        for lane in lanes:
            lane.submit()
        while any(lane.busy for lane in lanes):
            for lane in lanes:
                if lane.busy:
                    ended = lane.read()
                    lane.submit()
                    unsure += [draft for draft in ended if draft.open]
                    yield [draft for draft in ended if not draft.open]
        for decoder in self._decoders:
            decoder.backend.clear()
        return [draft for lane in lanes for draft in lane.left_out]

    def _lanes(self, drafts: Sequence[Draft], samples: tuple[Samples, Samples] | None) -> list[Decoding]:
        """The texts and their paths, on one context or, where the tree can be divided, on two."""
        paths_of = [draft.paths() for draft in drafts]
        start = [len(draft.request.prompt) + len(draft.tokens) for draft in drafts]
        ahead = [[path[n:] for path in own] for n, own in zip(start, paths_of, strict=True)]
        sizes = np.array([len(rest) + 1 for rests in ahead for rest in rests], dtype=np.int64)
        ends = np.cumsum(sizes)
        first = np.repeat([n - 1 for n, rests in zip(start, ahead, strict=True) for _ in rests], sizes)
        wanted = WantedRows(
            [path for own in paths_of for path in own],
            np.repeat(np.arange(len(sizes)), sizes),
            first + np.arange(int(ends[-1])) - np.repeat(ends - sizes, sizes),
        )
        rows = np.split(wanted.row_of, ends[:-1])
        owners: list[list[tuple[Text, int]]] = [[] for _ in wanted.tree.paths]
        # The path whose tokens a row stands in: all paths and rows of a text belong on one context.
        path_of = np.searchsorted(wanted.tree.starts, wanted.outputs, side="right") - 1
        spans = np.zeros(len(owners) + 1, dtype=np.int64)
        at = 0
        for draft, n, rests in zip(drafts, start, ahead, strict=True):
            text = Text(draft, n, rests, rows[at : at + len(rests)], len(rests))
            paths = wanted.tree.index[at : at + len(rests)].tolist()
            for k, path in enumerate(paths):
                owners[path].append((text, k))
            spans[min(path_of[row.min()] for row in text.rows) + 1] += 1
            spans[max(paths) + 1] -= 1
            at += len(rests)
        middle = wanted.tree.middle(np.cumsum(spans[:-1]) > 0) if len(self._decoders) > 1 else 0
        window = self._decoders[0].backend.n_swa
        lanes = []
        parts = wanted.parts(middle, window=window, with_bases=self._cache is not None)
        for decoder, part in zip(self._decoders, parts, strict=False):
            decoder.backend.clear()
            own = owners[part.first_path : part.first_path + len(part.tree.paths)]
            for text in {id(text): text for path in own for text, _ in path}.values():
                text.rows = [row - part.first_row for row in text.rows]
            lanes.append(
                Decoding(decoder, self._budget, self._scorer, part, own, near_tie(self.noise), self._cache, samples)
            )
        return lanes


def _held_back(
    batches: Generator[list[Draft], None, list[Draft]], into: list[Draft]
) -> Generator[list[Draft], None, list[Draft]]:
    """Keep what a generator yields, and yield nothing instead; its return value."""
    while True:
        try:
            into.extend(next(batches))
        except StopIteration as stop:
            waiting: list[Draft] = stop.value
            return waiting
        yield []
