"""Exact greedy text for many requests at once.

A request that names candidate texts has them verified in the same pass as its prompt: wherever the argmax runs down a
candidate to a stop token, that text is the greedy output and nothing is decoded. Where it leaves every candidate, and
for requests without any, decoding goes on token by token, many requests to a batch: each leaves when it stops and
others join, their prompts' prefill sharing batches with the decode steps of the rest.

Where the best two logits lie closer than the run's measured noise, the argmax could depend on the shape of the batch.
Such a position is recomputed alone in one canonical shape (``Decoder.alone``), so that neither the plan nor the
candidates can decide the text.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from orin_runner.batch import BatchBuilder
from orin_runner.cells import KVCells
from orin_runner.decoder import Decoder
from orin_runner.planner import Budget, Planner
from orin_runner.requests import Generated, GenerateRequest, Tokens
from orin_runner.scoring import RowFacts
from orin_runner.tree import TokenTree

FIRST_GUESS = 16
"""Tokens a text is expected to have before any has been finished; only the pace of admission depends on it."""


@dataclass(slots=True)
class Draft:
    """A text in the making: the request it answers and what is known of it so far.

    Attributes:
        index: of the request in its list.
        request: what is asked.
        limit: most tokens.
        piece: the bytes of a token.
        tail: the end of the text, long enough that the next token may complete a stop text.
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

    @property
    def finished(self) -> bool:
        return self.stopped or len(self.tokens) >= self.limit

    def prefix(self) -> npt.NDArray[np.int32]:
        """Prompt and text so far."""
        return np.concatenate([self.request.prompt, np.array(self.tokens, dtype=np.int32)])

    def accept(self, token: int, lead: float, logprob: float) -> None:
        """Take the next greedy token; a stop token ends the text before it, a stop text with it."""
        self.margin = min(self.margin, lead)
        self.logprob += logprob
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
        noise: a lead below this is recomputed in the canonical shape.

    Attributes:
        settled: positions that were recomputed alone.
        settled_tokens: tokens computed for them.
    """

    def __init__(self, decoder: Decoder, budget: Budget, n_chunk: int, noise: float) -> None:
        self._decoder = decoder
        self._budget = budget
        self._n_chunk = n_chunk
        self._noise = noise
        self.settled = 0
        self.settled_tokens = 0

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
            if facts.lead[row] < self._noise:
                self.settle(draft)
            else:
                draft.accept(int(facts.best[row]), float(facts.lead[row]), float(facts.top[row]))
            if len(draft.tokens) > depth:
                token = draft.tokens[depth]
                alive = [(c, r) for c, r in alive if len(c) > depth and c[depth] == token]
                draft.drafted += bool(alive)

    def settle(self, draft: Draft) -> None:
        """Decide the next token of ``draft`` in the canonical shape. The cache must be empty."""
        prefix = draft.prefix()
        facts = RowFacts(1)
        facts.fill(0, self._decoder.alone(prefix, self._n_chunk)[None, :])
        self.settled += 1
        self.settled_tokens += len(prefix)
        draft.accept(int(facts.best[0]), float(facts.lead[0]), float(facts.top[0]))

    def finish(self, drafts: Sequence[Draft]) -> Iterator[Draft]:
        """Decode until every draft is finished; yields each when it is. The cache must be empty."""
        waiting = list(drafts)
        while waiting:
            unsure: list[Draft] = []
            waiting = yield from self._round(waiting, unsure)
            for draft in unsure:
                self.settle(draft)
                if draft.finished:
                    yield draft
                else:
                    waiting.append(draft)

    def _round(self, drafts: Sequence[Draft], unsure: list[Draft]) -> Generator[Draft, None, list[Draft]]:
        """Decode ``drafts``; returns those that had to leave for lack of cells, and fills ``unsure``."""
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
            facts = RowFacts(batch.n_outputs)
            facts.fill(0, decoder.rows(batch.n_outputs))
            went_on: list[_Running] = []
            for k, item in enumerate(running):
                if self._step(item.draft, facts, k, unsure):
                    went_on.append(item)
                else:
                    cells.release(item.seq)
                    decoder.backend.cut(item.seq, 0)
            first = len(running)
            for k, (path, seq) in enumerate(filled.retained if filled else ()):
                draft = by_path[path]
                if self._step(draft, facts, first + k, unsure):
                    went_on.append(_Running(draft, seq, len(tree.paths[path])))
                else:
                    cells.release(seq)
                    decoder.backend.cut(seq, 0)
                    if draft.finished:
                        yield draft
            for item in running:
                if item.draft.finished:
                    lengths.append(len(item.draft.tokens))
                    yield item.draft
            running = went_on
        left_out.extend(by_path[path] for path in range(planner.path, len(tree.paths)))
        decoder.backend.clear()
        return left_out

    def _step(self, draft: Draft, facts: RowFacts, row: int, unsure: list[Draft]) -> bool:
        """Accept the row's argmax. Whether the draft needs another decode step."""
        if facts.lead[row] < self._noise:
            unsure.append(draft)
            return False
        draft.accept(int(facts.best[row]), float(facts.lead[row]), float(facts.top[row]))
        return not draft.finished
