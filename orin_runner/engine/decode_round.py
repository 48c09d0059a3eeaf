"""A round of greedy decoding on one context: prompts with their candidates, and what follows them, in the same batches.

A text's paths, its prompt with each candidate, are finished one after another. The argmax is followed down the
candidates as soon as the last of them is; where it leaves them all, the sequence of the candidate that it followed
furthest is cut there and decoding goes on from it, token by token, while the prompts of others are still computed.
Until then a text keeps that one sequence only. A prompt is computed a second time only where its text has to give way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orin_runner.batching.batch import BatchBuilder
from orin_runner.batching.kv_cells import CellsError, KVCells
from orin_runner.batching.packer import IDS_BESIDE_PATHS, Budget, Filled, Planner
from orin_runner.batching.wanted_rows import Int64, Part
from orin_runner.engine.executor import Decoder
from orin_runner.engine.greedy_text import Draft
from orin_runner.engine.logits import RowFacts, RowScorer
from orin_runner.engine.prefill import restore_base, save_base
from orin_runner.engine.prompt_cache import PromptCache
from orin_runner.engine.wanted_tokens import middles
from orin_runner.requests import Tokens

Row = npt.NDArray[np.float32]

FIRST_GUESS = 64
"""Tokens that a text is expected to go on for before any has been finished, if its limit allows. Only the pace of
admission depends on it: too few, and texts have to give way later; too many, and fewer run side by side."""

MOST_SAMPLES = 32
"""Rows of each kind that are kept at a time to be compared with the same rows alone."""


class Samples:
    """Rows of logits and the tokens they follow, spread over a round."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, Tokens, Row]] = []
        self._every = 1
        self._seen = 0

    def take(self, n_tokens: int, tokens: Tokens, row: Row) -> None:
        """Keep the row of a batch of ``n_tokens``, a copy, or not: of many, every other one, then every fourth, ..."""
        if self._seen % self._every == 0:
            self._kept.append((n_tokens, tokens, row.copy()))
            if len(self._kept) > MOST_SAMPLES:
                del self._kept[1::2]
                self._every *= 2
        self._seen += 1

    def spread(self, n: int) -> list[tuple[Row, Tokens]]:
        """At most ``n`` rows and what they follow, of the fuller batches: a small one is computed much as one alone."""
        median = sorted(size for size, _, _ in self._kept)[len(self._kept) // 2] if self._kept else 0
        fuller = [(row, tokens) for size, tokens, row in self._kept if size >= median]
        return [fuller[at] for at in middles(len(fuller), n).tolist()]


@dataclass(slots=True)
class Text:
    """A draft in a round.

    Attributes:
        start: tokens of prompt and text before the round.
        ahead: what each of its paths has after these.
        rows: per path, the rows after the first ``start`` tokens and after each one ahead.
        missing: paths that are not finished.
        matched: tokens ahead on the path that the argmax follows furthest, of those that are finished.
        seq: a sequence that holds that path; None if it had to give way, or there was none for a second text.
    """

    draft: Draft
    start: int
    ahead: list[Tokens]
    rows: list[Int64]
    missing: int
    matched: int = -1
    seq: int | None = None


@dataclass(slots=True)
class _Running:
    """A draft whose sequence is in the cache, with one token accepted and not yet computed."""

    draft: Draft
    seq: int
    position: int


class Decoding:
    """One context's part of a round; ``submit`` and ``read`` in turn until ``submit`` says there is nothing left.

    Args:
        decoder: where to compute; its cache is empty.
        budget: limits of one decode call, and of its cache.
        scorer: threads for the row work.
        part: the paths.
        owners: per path, the texts that have it and which of theirs it is.
        near_tie: a lead below this may be rounding.
        cache: states of shared prefixes to restore instead of computing them, and to keep.
        samples: receives rows of prompts and of decode steps; None for none.

    Attributes:
        left_out: drafts that had to leave for lack of cells, when all is done.
    """

    def __init__(
        self,
        decoder: Decoder,
        budget: Budget,
        scorer: RowScorer,
        part: Part,
        owners: Sequence[list[tuple[Text, int]]],
        near_tie: float,
        cache: PromptCache | None,
        samples: tuple[Samples, Samples] | None,
    ) -> None:
        self._decoder, self._budget, self._scorer = decoder, budget, scorer
        self._part, self._owners, self._near_tie = part, owners, near_tie
        self._cache, self._samples = cache, samples
        self._cells = KVCells(budget.n_cells, budget.n_seq, part.tree.n_unique)
        everything = np.ones(len(part.tree.paths), dtype=bool)
        self._planner = Planner(part.tree, part.outputs, budget, self._cells, everything, part.bases)
        self._facts = RowFacts(len(part.outputs))
        self._next_row = 0
        self._running: list[_Running] = []
        self._waiting: list[Text] = []  # have a sequence, and paths that are not finished
        self._n_ended = self._tokens_ended = 0  # decoded texts and their tokens
        self._submitted: tuple[int, int, Filled | None] | None = None  # tokens, rows, what of the tree
        self.left_out: list[Draft] = []

    @property
    def busy(self) -> bool:
        """Whether there is something to read."""
        return self._submitted is not None

    def submit(self) -> None:
        """Start the next batch: a token of every running text, and as many of the tree as there is room for."""
        self._submitted = None
        planner, cells, budget = self._planner, self._cells, self._budget
        while len(self._running) > min(cells.free, budget.n_batch, budget.n_outputs):
            # The youngest gives way; its tokens are kept and its prefix is computed again later.
            last = self._running.pop()
            self._release(last.seq)
            self.left_out.append(last.draft)
        if self._cache is not None and not planner.done:
            base = planner.base_ahead
            if base is not None and len(base) <= self._room() and cells.free_ids >= IDS_BESIDE_PATHS:
                restore_base(planner, self._decoder, self._cache)
        builder = BatchBuilder()
        for item in self._running:
            token = np.array(item.draft.tokens[-1:], dtype=np.int32)
            builder.flag(np.array([builder.add(token, item.position, item.seq)]))
            handle = cells.new_handles(1)
            cells.extend(item.seq, handle, handle + 1)
            item.position += 1
            item.draft.decode_steps += 1
        filled = self._fill(builder)
        if not builder.n_tokens and not planner.done:
            # What texts with unfinished paths keep leaves no room for the rest of these.
            for text in self._waiting:
                self._give_up(text)
            filled = self._fill(builder)
            if not builder.n_tokens:
                raise CellsError("nothing fits into an empty cache")
        if builder.n_tokens:
            batch = builder.build()
            self._decoder.prepare(batch)
            self._decoder.submit(batch)
            if self._cache is not None and filled:
                save_base(planner, self._decoder, self._cache)
            self._submitted = (len(batch.tokens), batch.n_outputs, filled)

    def _room(self) -> int:
        """Cells that running texts are not expected to need."""
        expected = round(self._tokens_ended / self._n_ended) if self._n_ended else FIRST_GUESS
        return self._cells.free - sum(
            min(expected, item.draft.limit - len(item.draft.tokens)) for item in self._running
        )

    def _fill(self, builder: BatchBuilder) -> Filled | None:
        room = min(self._budget.n_batch - builder.n_tokens, self._room())
        if room < 1:
            return None
        return self._planner.fill(builder, room, self._budget.n_outputs - len(self._running), self._budget.n_seq)

    def read(self) -> list[Draft]:
        """Wait for the batch; the drafts it finished, some of them with positions to settle."""
        assert self._submitted is not None
        n_tokens, n_rows, filled = self._submitted
        rows = self._decoder.rows(n_rows)
        found = self._scorer.facts(rows)
        if self._samples is not None:
            self._sample(rows, filled, n_tokens)
        ended: list[Draft] = []
        running, self._running = self._running, []
        for k, item in enumerate(running):
            item.draft.follow(found, k, self._near_tie)
            if item.draft.finished:
                self._release(item.seq)
                self._n_ended, self._tokens_ended = self._n_ended + 1, self._tokens_ended + len(item.draft.tokens)
                ended.append(item.draft)
            else:
                self._running.append(item)
        self._facts.put(self._next_row, found, len(running))
        self._next_row += n_rows - len(running)
        for path, seq in filled.retained if filled else ():
            ended += self._finish_path(path, seq)
        self._waiting = [text for text in self._waiting if text.missing and text.seq is not None]
        return ended

    def _sample(self, rows: Row, filled: Filled | None, n_tokens: int) -> None:
        assert self._samples is not None
        prompts, steps = self._samples
        n = len(self._running)
        if n:
            steps.take(n_tokens, self._running[n // 2].draft.prefix(), rows[n // 2])
        if filled and filled.retained:
            path = filled.retained[len(filled.retained) // 2][0]
            row = int(np.searchsorted(self._part.outputs, self._part.tree.starts[path + 1] - 1))
            prompts.take(n_tokens, self._part.tree.paths[path], rows[n + row - self._next_row])

    def _finish_path(self, path: int, seq: int) -> list[Draft]:
        """Give ``seq`` to the texts that follow it further than another; decide those that have no path to wait for."""
        ended: list[Draft] = []
        owner: Text | None = None
        for text, k in self._owners[path]:
            text.missing -= 1
            differs = self._facts.best[text.rows[k][:-1]] != text.ahead[k]
            matched = int(differs.argmax()) if differs.any() else len(differs)
            if matched > text.matched:
                self._give_up(text)
                text.matched = matched
                if owner is None:
                    owner, text.seq = text, seq
                elif self._cells.free_ids > IDS_BESIDE_PATHS:
                    text.seq, n = self._cells.new_seq(), self._cells.length(seq)
                    self._cells.copy(seq, text.seq, n)
                    self._decoder.backend.copy(seq, text.seq, n)
                if text.seq is not None:
                    self._waiting.append(text)
        if owner is None:
            self._release(seq)
        for text, _ in self._owners[path]:
            if not text.missing:
                ended += self._decide(text)
        return ended

    def _decide(self, text: Text) -> list[Draft]:
        """Follow the argmax down the candidates; the draft if that finishes it."""
        draft, n_before = text.draft, len(text.draft.tokens)
        alive = list(zip(text.ahead, text.rows, strict=True))
        while alive and not draft.finished:
            depth = len(draft.tokens) - n_before
            draft.follow(self._facts, int(alive[0][1][depth]), self._near_tie)
            if len(draft.tokens) > n_before + depth:
                alive = [(c, r) for c, r in alive if len(c) > depth and c[depth] == draft.tokens[-1]]
                draft.drafted += bool(alive)
        if draft.finished:
            self._give_up(text)
            return [draft]
        # The last token has not been computed; the candidate's, from there on, are not the text's.
        position = text.start + len(draft.tokens) - n_before - 1
        backend = self._decoder.backend
        if text.seq is not None and backend.n_swa and backend.span(text.seq)[0] > max(0, position - backend.n_swa + 1):
            self._give_up(text)  # the candidate went so far that the beginning of the window here lay behind its own
        if text.seq is None:
            self.left_out.append(draft)
        else:
            self._cells.cut(text.seq, position)
            backend.cut(text.seq, position)
            self._running.append(_Running(draft, text.seq, position))
            text.seq = None
        return []

    def _give_up(self, text: Text) -> None:
        if text.seq is not None:
            self._release(text.seq)
            text.seq = None

    def _release(self, seq: int) -> None:
        self._cells.release(seq)
        self._decoder.backend.cut(seq, 0)
