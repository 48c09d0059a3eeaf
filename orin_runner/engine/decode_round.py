"""A round of greedy decoding on one context: prompts with their candidates, and what follows them, in the same batches.

A text's paths are its prompt with each candidate; they are finished one after another. As soon as the last of them is,
the argmax is followed down the candidates. Where it leaves them all, the sequence of the candidate that it followed
furthest is cut there, and decoding goes on from it, token by token, while the prompts of others are still computed.
Until then a text keeps that one sequence only. A prompt is computed a second time only where its text has to give way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orin_runner.batching.batch import BatchBuilder
from orin_runner.batching.kv_cells import CellsError, KVCells
from orin_runner.batching.packer import IDS_BESIDE_PATHS, Budget, Packer, Retained
from orin_runner.batching.tree import inside
from orin_runner.batching.wanted_rows import Int64, Part
from orin_runner.engine.bases import restore_base, save_base
from orin_runner.engine.executor import Executor, Row
from orin_runner.engine.greedy_text import GreedyText
from orin_runner.engine.logits import RowFacts, RowScorer
from orin_runner.engine.noise import KeptRows
from orin_runner.engine.prompt_cache import PromptCache
from orin_runner.requests import Tokens

FIRST_GUESS = 64
"""Tokens that a text is expected to go on for before any has been finished, if its bound allows. Only the pace of
admission depends on it: too few, and texts have to give way later; too many, and fewer run side by side."""


@dataclass(slots=True)
class TextPaths:
    """A text of a round and its paths in the tree.

    Attributes:
        text: the text.
        start: tokens of prompt and text before the round.
        ahead: what each of its paths has after these.
        rows: per path, int64, the rows after the first ``start`` tokens and after each one ahead.
        missing: paths that are not finished.
        matched: tokens ahead on the path that the argmax follows furthest, of those that are finished.
        seq: a sequence that holds that path; None if it had to give way, or there was none for a second text.
    """

    text: GreedyText
    start: int
    ahead: list[Tokens]
    rows: list[Int64]
    missing: int
    matched: int = -1
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class RoundRows:
    """Rows of a round that the noise is measured on: of prompts and candidates, and of decode steps."""

    prompts: KeptRows
    steps: KeptRows


@dataclass(slots=True)
class _Running:
    """A text whose sequence is in the cache, with one token accepted and not yet computed."""

    text: GreedyText
    seq: int
    position: int


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A batch on the device: its tokens, its rows, and the paths of the tree that it finished (None: nothing of it)."""

    n_tokens: int
    n_rows: int
    finished: Retained | None


class DecodeRound:
    """One context's part of a round: ``submit`` and ``read`` in turn until ``submit`` leaves nothing to read.

    Args:
        executor: where to compute; its cache is empty.
        budget: limits of one decode call, and of its cache.
        scorer: threads for the row work.
        part: the paths.
        owners: per path, the texts that have it and which of theirs it is.
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
        owners: Sequence[list[tuple[TextPaths, int]]],
        near_tie: float,
        cache: PromptCache | None,
        kept: RoundRows | None,
    ) -> None:
        self._executor, self._budget, self._scorer = executor, budget, scorer
        self._part, self._owners, self._near_tie = part, owners, near_tie
        self._cache, self._kept = cache, kept
        self._cells = KVCells(budget.n_cells, budget.n_seq, part.tree.n_unique)
        everything = np.ones(len(part.tree.paths), dtype=bool)
        self._packer = Packer(part.tree, part.outputs, budget, self._cells, everything, part.bases)
        self._facts = RowFacts(len(part.outputs))
        self._next_row = 0
        self._running: list[_Running] = []
        self._waiting: list[TextPaths] = []  # have a sequence, and paths that are not finished
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
        for item in self._running:
            token = np.array(item.text.tokens[-1:], dtype=np.int32)
            builder.flag(np.array([builder.add(token, item.position, item.seq)]))
            handle = cells.new_handles(1)
            cells.extend(item.seq, handle, handle + 1)
            item.position += 1
            item.text.decode_steps += 1
        finished = self._fill(builder)
        if not builder.n_tokens and not packer.done:
            # What texts with unfinished paths keep leaves no room for the rest of these.
            for paths in self._waiting:
                self._give_up(paths)
            finished = self._fill(builder)
            if not builder.n_tokens:
                raise CellsError("nothing fits into an empty cache")
        if builder.n_tokens:
            batch = builder.build()
            self._executor.prepare(batch)
            self._executor.submit(batch)
            if self._cache is not None and finished is not None:
                save_base(packer, self._executor, self._cache)
            self._submitted = _Submitted(len(batch.tokens), batch.n_outputs, finished)

    def give_back(self, share: float) -> list[GreedyText]:
        """Leave texts to others none of whose tokens is in a batch; ``share`` as ``Packer.give_back`` takes it."""
        places: dict[int, list[int]] = {}
        for path, owners in enumerate(self._owners):
            for paths, _ in owners:
                places.setdefault(id(paths), []).append(path)
        first, last = (np.array([own[at] for own in places.values()], dtype=np.int64) for at in (0, -1))
        given = self._packer.give_back(share, inside(first, last, len(self._owners)))
        texts = {id(paths): paths.text for path in given for paths, _ in self._owners[path]}
        return list(texts.values())

    def _room(self) -> int:
        """Cells that running texts are not expected to need."""
        expected = round(self._tokens_ended / self._n_ended) if self._n_ended else FIRST_GUESS
        return self._cells.free - sum(
            min(expected, item.text.max_tokens - len(item.text.tokens)) for item in self._running
        )

    def _fill(self, builder: BatchBuilder) -> Retained | None:
        room = min(self._budget.n_batch - builder.n_tokens, self._room())
        if room < 1:
            return None
        return self._packer.fill(builder, room, self._budget.n_outputs - len(self._running), self._budget.n_seq)

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
        for k, item in enumerate(running):
            item.text.follow(found, k, self._near_tie)
            if item.text.finished:
                self._release(item.seq)
                self._n_ended, self._tokens_ended = self._n_ended + 1, self._tokens_ended + len(item.text.tokens)
                ended.append(item.text)
            else:
                self._running.append(item)
        self._facts.put(self._next_row, found, len(running))
        self._next_row += batch.n_rows - len(running)
        for path, seq in batch.finished or ():
            ended += self._finish_path(path, seq)
        self._waiting = [paths for paths in self._waiting if paths.missing and paths.seq is not None]
        return ended

    def _keep_rows(self, rows: Row, batch: _Submitted, kept: RoundRows) -> None:
        """Offer one row of each kind, the middle one."""
        n = len(self._running)
        if n:
            kept.steps.take(batch.n_tokens, self._running[n // 2].text.prefix(), rows[n // 2])
        if batch.finished:
            path = batch.finished[len(batch.finished) // 2][0]
            row = int(np.searchsorted(self._part.outputs, self._part.tree.starts[path + 1] - 1))
            kept.prompts.take(batch.n_tokens, self._part.tree.paths[path], rows[n + row - self._next_row])

    def _finish_path(self, path: int, seq: int) -> list[GreedyText]:
        """Path ``path`` of the tree is computed, and ``seq`` holds it.

        Each text that has the path compares the argmax with it. A text that follows this path further than its others
        takes the sequence, or a copy of it where an earlier text has taken it, and gives up the one it had. Where no
        text takes it the sequence is released. A text whose last path this was is decided.

        Returns:
            The texts that this finishes.
        """
        ended: list[GreedyText] = []
        taken = False
        for paths, k in self._owners[path]:
            paths.missing -= 1
            differs = self._facts.best[paths.rows[k][:-1]] != paths.ahead[k]
            matched = int(differs.argmax()) if differs.any() else len(differs)
            if matched > paths.matched:
                self._give_up(paths)
                paths.matched = matched
                if not taken:
                    taken, paths.seq = True, seq
                elif self._cells.free_ids > IDS_BESIDE_PATHS:
                    paths.seq, n = self._cells.new_seq(), self._cells.length(seq)
                    self._cells.copy(seq, paths.seq, n)
                    self._executor.backend.copy(seq, paths.seq, n)
                if paths.seq is not None:
                    self._waiting.append(paths)
        if not taken:
            self._release(seq)
        for paths, _ in self._owners[path]:
            if not paths.missing:
                ended += self._decide(paths)
        return ended

    def _decide(self, paths: TextPaths) -> list[GreedyText]:
        """Follow the argmax down the candidates; the text if that finishes it, else it is decoded from there."""
        text, n_before = paths.text, len(paths.text.tokens)
        alive = list(zip(paths.ahead, paths.rows, strict=True))
        while alive and not text.finished:
            depth = len(text.tokens) - n_before
            text.follow(self._facts, int(alive[0][1][depth]), self._near_tie)
            if len(text.tokens) > n_before + depth:
                alive = [(c, r) for c, r in alive if len(c) > depth and c[depth] == text.tokens[-1]]
                text.drafted += bool(alive)
        if text.finished:
            self._give_up(paths)
            return [text]
        # The last token has not been computed; the candidate's, from there on, are not the text's.
        position = paths.start + len(text.tokens) - n_before - 1
        backend = self._executor.backend
        if (
            paths.seq is not None
            and backend.n_swa
            and backend.span(paths.seq)[0] > max(0, position - backend.n_swa + 1)
        ):
            self._give_up(paths)  # the candidate went so far that the beginning of the window here lay behind its own
        if paths.seq is None:
            self.left_out.append(text)
        else:
            self._cells.cut(paths.seq, position)
            backend.cut(paths.seq, position)
            self._running.append(_Running(text, paths.seq, position))
            paths.seq = None
        return []

    def _give_up(self, paths: TextPaths) -> None:
        if paths.seq is not None:
            self._release(paths.seq)
            paths.seq = None

    def _release(self, seq: int) -> None:
        self._cells.release(seq)
        self._executor.backend.cut(seq, 0)
