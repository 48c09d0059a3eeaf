"""A round of greedy decoding on one context: prompts, and what follows them, in the same batches.

As soon as a text's prompt is computed the sequence goes on from it. A decode step has the last token of each text, and
behind it a draft: what a candidate that begins with the text so far has next (``drafts``). Each row's argmax is the
next token; where it is not the draft's, the sequence is cut there. The prompts of others are computed meanwhile. A
prompt is computed a second time only where its text has to give way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orin_runner.batching.batch import BatchBuilder, Copy, Cut
from orin_runner.batching.kv_cells import CellsError, KVCells
from orin_runner.batching.packer import IDS_BESIDE_PATHS, Budget, Packer, Retained
from orin_runner.batching.wanted_rows import Part
from orin_runner.engine.bases import restore_base, save_base
from orin_runner.engine.drafts import Drafts
from orin_runner.engine.executor import Executor, Row
from orin_runner.engine.greedy_text import GreedyText
from orin_runner.engine.logits import RowFacts, RowScorer
from orin_runner.engine.noise import KeptRows
from orin_runner.engine.prompt_cache import PromptCache

FIRST_GUESS = 64
"""Tokens that a text is expected to go on for before any has been finished, if its bound allows. Only the pace of
admission depends on it: too few, and texts have to give way later; too many, and fewer run side by side."""


@dataclass(frozen=True, slots=True)
class RoundRows:
    """Rows of a round that the noise is measured on: of prompts, and of decode steps."""

    prompts: KeptRows
    steps: KeptRows


@dataclass(slots=True)
class _Running:
    """A text whose sequence is in the cache, with one token accepted and not yet computed.

    Attributes:
        position: of that token.
        draft: the tokens behind it in the batch on the device.
    """

    text: GreedyText
    seq: int
    position: int
    draft: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A batch on the device: its tokens, its rows, and the paths of the tree that it finished."""

    n_tokens: int
    n_rows: int
    finished: Retained


class DecodeRound:
    """One context's part of a round: ``submit`` and ``read`` in turn until ``submit`` leaves nothing to read.

    Args:
        executor: where to compute; its cache is empty.
        budget: limits of one decode call, and of its cache.
        scorer: threads for the row work.
        part: the paths, and a row after each.
        owners: per path, the texts that have it.
        drafts: proposes what texts may go on with.
        near_tie: a lead below this may be rounding, in nats.
        cache: states of shared prefixes to restore instead of computing them, and to keep.
        kept: receives rows to measure the noise on; None for none.

    Attributes:
        left_out: texts that had to leave for lack of cells, when all is done.
    """

    def __init__(
        self,
        executor: Executor,
        budget: Budget,
        scorer: RowScorer,
        part: Part,
        owners: Sequence[list[GreedyText]],
        drafts: Drafts,
        near_tie: float,
        cache: PromptCache | None,
        kept: RoundRows | None,
    ) -> None:
        self._executor, self._budget, self._scorer = executor, budget, scorer
        self._part, self._owners, self._drafts, self._near_tie = part, owners, drafts, near_tie
        self._cache, self._kept = cache, kept
        self._cells = KVCells(budget.n_cells, budget.n_seq, part.tree.n_unique)
        everything = np.ones(len(part.tree.paths), dtype=bool)
        self._packer = Packer(part.tree, part.outputs, budget, self._cells, everything, part.bases)
        self._running: list[_Running] = []
        self._n_ended = self._tokens_ended = 0  # decoded texts and their tokens
        self._submitted: _Submitted | None = None
        self.left_out: list[GreedyText] = []

    @property
    def busy(self) -> bool:
        """Whether there is something to read."""
        return self._submitted is not None

    def submit(self) -> None:
        """Start the next batch: a token of every running text, and as many of the tree as there is room for."""
        self._submitted = None
        packer, cells, budget = self._packer, self._cells, self._budget
        while len(self._running) > min(cells.free, budget.n_batch, budget.n_outputs):
            # The youngest gives way; its tokens are kept and its prefix is computed again later.
            last = self._running.pop()
            self._release(last.seq)
            self.left_out.append(last.text)
        if self._cache is not None and not packer.done:
            base = packer.base_ahead
            if base is not None and len(base) <= self._room() and cells.free_ids >= IDS_BESIDE_PATHS:
                restore_base(packer, self._executor, self._cache)
        builder = BatchBuilder()
        spare = min(cells.free, budget.n_batch, budget.n_outputs) - len(self._running)
        pins: list[int] = []
        for item in self._running:
            item.draft = self._drafts.propose(item.text, spare)
            if item.draft and self._executor.backend.n_swa:
                item.draft = item.draft if self._pin(item, builder, pins) else ()
            spare -= len(item.draft)
            tokens = np.array([item.text.tokens[-1], *item.draft], dtype=np.int32)
            builder.flag(builder.add(tokens, item.position, item.seq) + np.arange(len(tokens)))
            handle = cells.new_handles(len(tokens))
            cells.extend(item.seq, handle, handle + len(tokens))
            item.text.decode_steps += 1
        n_steps = builder.n_tokens
        finished = self._fill(builder)
        for pin in pins:
            cells.release(pin)
            builder.cuts.append(Cut(pin, 0))
        if builder.n_tokens:
            batch = builder.build()
            self._executor.prepare(batch)
            self._executor.submit(batch, n_steps)
            if self._cache is not None and finished is not None:
                save_base(packer, self._executor, self._cache)
            self._submitted = _Submitted(len(batch.tokens), batch.n_outputs, finished or ())
        elif not packer.done:
            raise CellsError("nothing fits into an empty cache")

    def _pin(self, item: _Running, builder: BatchBuilder, pins: list[int]) -> bool:
        """Hold what a windowed sequence has with a second id while it is extended by a draft.

        llama.cpp may take its cells for later tokens of the batch where they lie behind the draft's window; where the
        draft is refused they are needed again.

        Returns:
            Whether there was an id for it.
        """
        if self._cells.free_ids <= IDS_BESIDE_PATHS:
            return False
        pin = self._cells.new_seq()
        self._cells.copy(item.seq, pin, item.position)
        builder.copies.append(Copy(item.seq, pin, item.position))
        pins.append(pin)
        return True

    def give_back(self, share: float) -> list[GreedyText]:
        """Leave texts to others none of whose tokens is in a batch; ``share`` as ``Packer.give_back`` takes it."""
        given = self._packer.give_back(share)
        return [text for path in given for text in self._owners[path]]

    def _room(self) -> int:
        """Cells that running texts are not expected to need."""
        expected = round(self._tokens_ended / self._n_ended) if self._n_ended else FIRST_GUESS
        return self._cells.free - sum(
            min(expected, item.text.max_tokens - len(item.text.tokens)) for item in self._running
        )

    def _fill(self, builder: BatchBuilder) -> Retained | None:
        """Add of the tree what there is room for. Every token in ``builder`` has a row."""
        room = min(self._budget.n_batch - builder.n_tokens, self._room())
        if room < 1:
            return None
        return self._packer.fill(builder, room, self._budget.n_outputs - builder.n_tokens, self._budget.n_seq)

    def read(self) -> list[GreedyText]:
        """Wait for the batch; the texts it finished, some of them with positions to settle."""
        assert self._submitted is not None
        batch = self._submitted
        rows = self._executor.rows(batch.n_rows)
        found = self._scorer.facts(rows)
        if self._kept is not None:
            self._keep_rows(rows, batch, self._kept)
        ended: list[GreedyText] = []
        running, self._running = self._running, []
        row = 0
        for item in running:
            self._go_on(item, found, row)
            row += 1 + len(item.draft)
            if item.text.finished:
                self._release(item.seq)
                self._n_ended, self._tokens_ended = self._n_ended + 1, self._tokens_ended + len(item.text.tokens)
                ended.append(item.text)
        for path, seq in batch.finished:
            ended += self._begin(path, seq, found, row)
            row += 1
        return ended

    def _keep_rows(self, rows: Row, batch: _Submitted, kept: RoundRows) -> None:
        """Offer one row of each kind, the middle one."""
        n = len(self._running)
        if n:
            row = sum(1 + len(item.draft) for item in self._running[: n // 2])
            kept.steps.take(batch.n_tokens, self._running[n // 2].text.prefix(), rows[row])
        n = len(batch.finished)
        if n:
            path = batch.finished[n // 2][0]
            kept.prompts.take(batch.n_tokens, self._part.tree.paths[path], rows[n // 2 - n])

    def _go_on(self, item: _Running, found: RowFacts, row: int) -> None:
        """Let a text take the rows from ``row`` on, one for its last token and one for each of its draft."""
        text = item.text
        n_before = len(text.steps)
        accepted = text.follow(found, row, self._near_tie, item.draft)
        self._drafts.count(accepted, refused=accepted < min(len(item.draft), len(text.steps) - n_before))
        if text.finished:
            return
        item.position += 1 + accepted
        if accepted < len(item.draft):
            self._cells.cut(item.seq, item.position)
            self._executor.backend.cut(item.seq, item.position)
        self._running.append(item)

    def _begin(self, path: int, seq: int, found: RowFacts, row: int) -> list[GreedyText]:
        """Path ``path`` of the tree is computed, ``seq`` holds it, and ``row`` is the one after it.

        The first text that has the path goes on with the sequence, others with copies of it.

        Returns:
            The texts that this finishes.
        """
        ended: list[GreedyText] = []
        n, taken = self._cells.length(seq), False
        for text in self._owners[path]:
            text.follow(found, row, self._near_tie)
            if text.finished:
                ended.append(text)
            elif not taken:
                taken = True
                self._running.append(_Running(text, seq, n))
            elif self._cells.free_ids > IDS_BESIDE_PATHS:
                own = self._cells.new_seq()
                self._cells.copy(seq, own, n)
                self._executor.backend.copy(seq, own, n)
                self._running.append(_Running(text, own, n))
            else:
                self.left_out.append(text)
        if not taken:
            self._release(seq)
        return ended

    def _release(self, seq: int) -> None:
        self._cells.release(seq)
        self._executor.backend.cut(seq, 0)
