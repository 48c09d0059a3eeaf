"""Exact greedy text for many requests at once.

A request that names candidate texts has them verified in the same pass as its prompt: wherever the argmax runs down a
candidate to a stop token, that text is the greedy output and nothing is decoded. Where it leaves every candidate, and
for requests without any, decoding goes on token by token, many requests to a batch: each leaves when it stops and
others join, their prompts' prefill sharing batches with the decode steps of the rest.

Where the best two logits lie closer than the run's measured noise, the argmax could depend on the shape of the batch.
Such a position is recomputed alone in one canonical shape (``Decoder.alone``), so that neither the plan nor the
candidates can decide the text. Decoding does not wait for that: it goes on with the argmax, which nearly always stands,
and what followed another token is dropped afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from orin_runner.batch import BatchBuilder
from orin_runner.cells import KVCells
from orin_runner.decoder import Decoder
from orin_runner.planner import Budget, Planner
from orin_runner.requests import Generated, GenerateRequest, Tokens
from orin_runner.scoring import RowFacts, RowScorer, largest_difference, near_tie
from orin_runner.tree import TokenTree

Row = npt.NDArray[np.float32]
Key = TypeVar("Key")

FIRST_GUESS = 16
"""Tokens a text is expected to have before any has been finished; only the pace of admission depends on it."""

SAMPLES = 8
"""Rows of the first decode calls that are computed again, alone, to measure the noise of decoding: half of them rows of
prompts, half of decode steps, whose batches have other shapes ..."""
SAMPLED_SHARE = 1 / 8
"""... and of a short run's texts no more than this share, though at least half of ``SAMPLES``."""


@dataclass(slots=True)
class Draft:
    """A text in the making: the request it answers and what is known of it so far.

    Attributes:
        index: of the request in its list.
        request: what is asked.
        limit: most tokens.
        piece: the bytes of a token.
        tail: the end of the text, long enough that the next token may complete a stop text.
        steps: (token, lead, log-probability) of every accepted token, a stop token included.
        open: positions in ``steps``, ascending, whose lead was within the noise and which are not settled yet.
    """

    index: int
    request: GenerateRequest
    limit: int
    piece: Callable[[int], bytes]
    tail: bytes = b""
    tokens: list[int] = field(default_factory=list)
    margin: float = np.inf
    logprob: float = 0.0
    stopped: bool = False
    decode_steps: int = 0
    drafted: int = 0
    steps: list[tuple[int, float, float]] = field(default_factory=list)
    open: list[int] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return self.stopped or len(self.tokens) >= self.limit

    def prefix(self, depth: int | None = None) -> npt.NDArray[np.int32]:
        """Prompt and text so far, or its first ``depth`` tokens."""
        return np.concatenate([self.request.prompt, np.array(self.tokens[:depth], dtype=np.int32)])

    def accept(self, token: int, lead: float, logprob: float) -> None:
        """Take the next greedy token; a stop token ends the text before it, a stop text with it."""
        self.margin = min(self.margin, lead)
        self.logprob += logprob
        self.steps.append((token, lead, logprob))
        if token in self.request.stop:
            self.stopped = True
            return
        self.tokens.append(token)
        if self.request.until:
            # Some tokenizers drop the space their text begins with, so it completes no stop text.
            text = self.tail + self.piece(token) if self.tail else self.piece(token).lstrip(b" ")
            stops = [stop.encode() for stop in self.request.until]
            self.stopped = any(stop in text for stop in stops)
            self.tail = text[-max(map(len, stops)) :]

    def settle(self, depth: int, token: int, lead: float, logprob: float) -> None:
        """Take the token at ``depth`` that was decided alone; what followed another one there is dropped."""
        stands = depth < len(self.steps) and self.steps[depth][0] == token
        later = self.steps[depth + 1 :] if stands else []
        self.open = [at for at in self.open if at != depth] if stands else []
        steps = [*self.steps[:depth], (token, lead, logprob), *later]
        self.tokens, self.margin, self.logprob, self.stopped, self.steps = [], np.inf, 0.0, False, []
        self.tail = b""
        for step in steps:
            self.accept(*step)

    def result(self) -> Generated:
        return Generated(
            np.array(self.tokens, dtype=np.int32),
            self.stopped,
            self.margin,
            self.logprob,
            self.decode_steps,
            self.drafted,
        )


@dataclass(slots=True)
class _Running:
    """A draft whose sequence is in the cache, with one token accepted and not yet computed."""

    draft: Draft
    seq: int
    position: int


class Greedy:
    """Finishes drafts.

    Args:
        decoder: where to compute.
        budget: limits of one decode call.
        n_chunk: chunk length of the canonical shape.
        noise: largest difference of any log-probability seen so far between the run's shapes and the canonical one.
        scorer: threads for the row work.

    Attributes:
        noise: as given, or what decoding has shown if that is more. A lead below ``near_tie`` of it is settled.
        settled: positions that were recomputed alone.
        settled_tokens: tokens computed for them.
    """

    def __init__(self, decoder: Decoder, budget: Budget, n_chunk: int, noise: float, scorer: RowScorer) -> None:
        self._decoder = decoder
        self._budget = budget
        self._n_chunk = n_chunk
        self.noise = noise
        self._scorer = scorer
        self.settled = 0
        self.settled_tokens = 0
        self.settle_s = 0.0
        self._samples: dict[str, list[tuple[Row, Tokens]]] | None = None
        self._n_samples = SAMPLES

    def verify(
        self,
        draft: Draft,
        facts: RowFacts,
        candidates: Sequence[Tokens],
        rows: Sequence[npt.NDArray[np.int64]],
    ) -> None:
        """Follow the argmax down the candidates as far as they go. The cache must be empty.

        Args:
            draft: a draft without tokens.
            facts: the rows of the pass.
            candidates: texts that were computed along with the prompt.
            rows: per candidate, the row after the prompt and after each of its tokens, int64 ``[len + 1]``.
        """
        alive = list(zip(candidates, rows, strict=True))
        while alive and not draft.finished:
            depth = len(draft.tokens)
            row = int(alive[0][1][depth])
            if facts.lead[row] < near_tie(self.noise):
                draft.open = [depth]
                self.settle([(draft, depth)])
            else:
                draft.accept(int(facts.best[row]), float(facts.lead[row]), float(facts.top[row]))
            if len(draft.tokens) > depth:
                token = draft.tokens[depth]
                alive = [(c, r) for c, r in alive if len(c) > depth and c[depth] == token]
                draft.drafted += bool(alive)

    def settle(self, positions: Sequence[tuple[Draft, int]]) -> None:
        """Decide the tokens at (draft, depth) in the canonical shape. Empties the cache.

        A position that an earlier one of the same draft has overturned is dropped.
        """
        started, before = time.perf_counter(), self._decoder.stats.tokens
        wanted = [((draft, depth), draft.prefix(depth)) for draft, depth in positions]
        for (draft, depth), row in self._alone(wanted):
            if depth in draft.open:
                facts = self._scorer.facts(row[None, :])
                draft.settle(depth, int(facts.best[0]), float(facts.lead[0]), float(facts.top[0]))
        self.settled += len(positions)
        self.settled_tokens += self._decoder.stats.tokens - before
        self.settle_s += time.perf_counter() - started

    def _alone(self, wanted: list[tuple[Key, Tokens]]) -> Iterator[tuple[Key, Row]]:
        """The rows after prefixes, in the canonical shape; a draft's own in the order of their depth."""
        # Any order that brings common beginnings together will do, and a prefix stands before what it begins.
        ordered = sorted(wanted, key=lambda item: item[1].tobytes())
        rows = self._decoder.each_alone([prefix for _, prefix in ordered], self._n_chunk)
        yield from ((key, row) for (key, _), row in zip(ordered, rows, strict=True))

    def finish(self, drafts: Sequence[Draft]) -> Iterator[Draft]:
        """Decode until every draft is finished; yields each when it is. The cache must be empty."""
        waiting = list(drafts)
        if waiting:
            waiting = yield from self._first_round(waiting)
        while waiting:
            unsure: list[Draft] = []
            waiting = yield from self._round(waiting, unsure)
            yield from self._settled(unsure, waiting)

    def _first_round(self, drafts: list[Draft]) -> Generator[Draft, None, list[Draft]]:
        """Decode on probation as many as run side by side: what the noise of decoding is shows only afterwards."""
        n_tokens = np.cumsum([len(draft.prefix()) for draft in drafts])
        some = drafts[: max(SAMPLES, int(np.searchsorted(n_tokens, self._budget.n_cells, side="right")))]
        self._samples = {"prompts": [], "steps": []}
        self._n_samples = max(SAMPLES // 2, min(SAMPLES, round(SAMPLED_SHARE * len(some))))
        ended: list[Draft] = []
        waiting = _drain(self._round(some, ended), ended)
        samples, self._samples = self._samples, None
        before = self._decoder.stats.tokens
        for seen, row in self._alone([*samples["prompts"], *samples["steps"]]):
            self.noise = max(self.noise, largest_difference(row, seen))
        self.settled_tokens += self._decoder.stats.tokens - before
        for draft in [*ended, *waiting]:
            draft.open = [at for at, (_, lead, _) in enumerate(draft.steps) if lead < near_tie(self.noise)]
        yield from (draft for draft in ended if not draft.open)
        unsure = [draft for draft in [*ended, *waiting] if draft.open]
        waiting = [draft for draft in waiting if not draft.open] + drafts[len(some) :]
        yield from self._settled(unsure, waiting)
        return waiting

    def _settled(self, unsure: Sequence[Draft], waiting: list[Draft]) -> Iterator[Draft]:
        """Settle every open position; yields what is finished then, and adds the others to ``waiting``."""
        self.settle([(draft, depth) for draft in unsure for depth in draft.open])
        for draft in unsure:
            if draft.finished:
                yield draft
            else:
                waiting.append(draft)

    def _round(self, drafts: Sequence[Draft], unsure: list[Draft]) -> Generator[Draft, None, list[Draft]]:
        """Decode ``drafts``; returns those that had to leave for lack of cells.

        Args:
            drafts: none of them finished.
            unsure: receives those that came to an end with positions to settle.
        """
        decoder, budget = self._decoder, self._budget
        decoder.backend.clear()
        tree = TokenTree([draft.prefix() for draft in drafts])
        ends = tree.starts[1:] - 1
        cells = KVCells(budget.n_cells, budget.n_seq, tree.n_unique)
        planner = Planner(tree, ends, budget, cells, np.ones(len(tree.paths), dtype=bool))
        by_path: dict[int, Draft] = {}
        left_out: list[Draft] = []
        for draft, path in zip(drafts, tree.index.tolist(), strict=True):
            if by_path.setdefault(path, draft) is not draft:
                left_out.append(draft)  # the same tokens again: the next round's
        running: list[_Running] = []
        lengths: list[int] = []
        while running or not planner.done:
            while len(running) > min(cells.free, budget.n_batch, budget.n_outputs):
                # The youngest gives way; its tokens are kept and its prefix is computed again later.
                last = running.pop()
                left_out.append(last.draft)
                cells.release(last.seq)
                decoder.backend.cut(last.seq, 0)
            if not running and (planner.done or cells.free == 0):
                break
            builder = BatchBuilder()
            for item in running:
                token = np.array(item.draft.tokens[-1:], dtype=np.int32)
                builder.flag(np.array([builder.add(token, item.position, item.seq)]))
                handle = cells.new_handles(1)
                cells.extend(item.seq, handle, handle + 1)
                item.position += 1
                item.draft.decode_steps += 1
            filled = None
            expected = round(np.mean(lengths)) if lengths else FIRST_GUESS
            room = min(budget.n_batch - builder.n_tokens, cells.free - len(running) * expected)
            if not running:
                room = min(budget.n_batch, cells.free)
            if room > 0:
                filled = planner.fill(builder, room, budget.n_outputs - len(running), budget.n_seq)
            batch = builder.build()
            decoder.prepare(batch)
            decoder.submit(batch)
            rows = decoder.rows(batch.n_outputs)
            facts = self._scorer.facts(rows)
            if self._samples is not None:
                self._sample("steps", [item.draft for item in running], rows)
                self._sample(
                    "prompts", [by_path[p] for p, _ in (filled.retained if filled else ())], rows[len(running) :]
                )
            went_on: list[_Running] = []
            ended: list[Draft] = []
            for k, item in enumerate(running):
                if self._step(item.draft, facts, k):
                    went_on.append(item)
                else:
                    cells.release(item.seq)
                    decoder.backend.cut(item.seq, 0)
                    lengths.append(len(item.draft.tokens))
                    ended.append(item.draft)
            first = len(running)
            for k, (path, seq) in enumerate(filled.retained if filled else ()):
                draft = by_path[path]
                if self._step(draft, facts, first + k):
                    went_on.append(_Running(draft, seq, len(tree.paths[path])))
                else:
                    cells.release(seq)
                    decoder.backend.cut(seq, 0)
                    ended.append(draft)
            unsure += [draft for draft in ended if draft.open]
            yield from (draft for draft in ended if not draft.open)
            running = went_on
        left_out.extend(by_path[path] for path in range(planner.path, len(tree.paths)))
        decoder.backend.clear()
        return left_out

    def _sample(self, of: str, owners: Sequence[Draft], rows: npt.NDArray[np.float32]) -> None:
        """Keep some rows of a batch and what they follow, to compare them with the same rows alone."""
        assert self._samples is not None
        for k in sorted({len(owners) // 4, len(owners) // 2, 3 * len(owners) // 4} if owners else ()):
            if len(self._samples[of]) < self._n_samples // 2:
                self._samples[of].append((rows[k].copy(), owners[k].prefix()))

    def _step(self, draft: Draft, facts: RowFacts, row: int) -> bool:
        """Accept the row's argmax. Whether the draft needs another decode step."""
        if facts.lead[row] < near_tie(self.noise):
            draft.open.append(len(draft.steps))
        draft.accept(int(facts.best[row]), float(facts.lead[row]), float(facts.top[row]))
        return not draft.finished


def _drain(finished: Generator[Draft, None, list[Draft]], into: list[Draft]) -> list[Draft]:
    """Keep what a generator yields; its return value."""
    waiting: list[Draft] = []

    def whole() -> Iterator[Draft]:
        waiting.extend((yield from finished))

    into.extend(whole())
    return waiting
