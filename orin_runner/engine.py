"""Requests in, results out: the tree pass, the self-check, and greedy text.

The engine knows requests, tokens and a backend; it does not know tasks, data sets, files or GGUF.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from orin_runner.decoder import Backend, Decoder, DecodeStats
from orin_runner.errors import UserError
from orin_runner.generate import Draft, Greedy
from orin_runner.planner import Budget
from orin_runner.probes import Probes
from orin_runner.prompt_cache import PromptCache
from orin_runner.requests import GenerateRequest, Request, Result, ScoreRequest, longest_path
from orin_runner.scoring import RowScorer, largest_difference, near_tie
from orin_runner.stream import StreamPass
from orin_runner.tree import TokenTree


@dataclass(slots=True)
class RunStats:
    """What a run cost.

    Attributes:
        sent: tokens as a tool without sharing would send them: the prompt once with each of its continuations, once for
            all those of a single token.
        unique: distinct tokens in the prefix tree of all paths.
        computed: tokens computed for the answers (tree pass and decoding).
        checked: tokens computed a second time for the self-check and for settling near-ties.
        noise: largest difference of any log-probability between a request in the tree and the same request alone.
        check_requests: how many requests that was measured on.
        settled: positions of greedy texts decided in the canonical shape.
        settle_s: seconds of the decode clock that these took.
        restored: tokens whose state came from the prompt cache instead of being computed.
        clocks: seconds per stage: plan, prefill, decode, check.
        prefill: decode calls of the tree pass.
    """

    sent: int = 0
    unique: int = 0
    computed: int = 0
    checked: int = 0
    noise: float = 0.0
    check_requests: int = 0
    settled: int = 0
    settle_s: float = 0.0
    restored: int = 0
    clocks: dict[str, float] = field(default_factory=dict)
    prefill: DecodeStats = field(default_factory=DecodeStats)

    @property
    def near_tie(self) -> float:
        """A lead below this may be rounding."""
        return near_tie(self.noise)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: tokens of the tree computed, out of its unique tokens, and tokens as sent."""

    computed: int
    unique: int
    sent: int


class Engine:
    """Runs requests on one context, or the tree pass on two.

    Args:
        backends: empty contexts of the same model and sizes, one or two.
        budget: limits of one decode call, and of one context.
        n_chunk: tokens per decode call of the canonical shape, at most every budget's n_batch: texts decided in that
            shape must not depend on the budget.
        n_positions: longest sequence the model is made for.
        n_threads: threads for turning logits into log-probabilities.
        draft: verify the candidates that generation requests name; without it they are ignored.
        cache: states of shared prefixes kept between runs.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        budget: Budget,
        *,
        n_chunk: int,
        n_positions: int,
        n_threads: int = 2,
        draft: bool = True,
        cache: PromptCache | None = None,
    ) -> None:
        self._cache = cache
        self._decoders = [Decoder(backend, watched=len(backends) > 1) for backend in backends]
        self._decoder = self._decoders[0]
        self._budget = budget
        if n_chunk > budget.n_batch:
            raise ValueError(f"the canonical shape needs {n_chunk} tokens a call, the budget allows {budget.n_batch}")
        self._n_chunk = n_chunk
        self._n_positions = min(n_positions, budget.n_cells)
        self._n_threads = n_threads
        self._draft = draft
        self.stats = RunStats()

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Result] | Progress]:
        """Answer every request, in whatever order is fastest.

        Yields:
            (index of the request, its result), each exactly once, with ``Progress`` in between.

        Raises:
            UserError: a request does not fit the context; nothing has been computed then.
            DecodeError, LostPrefixError: the device failed, or a prefix was lost.
        """
        self.stats = RunStats()
        stats = DecodeStats()
        for decoder in self._decoders:
            decoder.stats = stats
        started = time.perf_counter()
        plan = Probes(requests, draft=self._draft, n_positions=self._n_positions)
        self._check_lengths(requests)
        scorer = RowScorer(self._n_threads)
        try:
            texts = any(isinstance(request, GenerateRequest) for request in requests)
            stream = StreamPass(plan.paths, plan.path, plan.position, plan.token, leads=texts)
            self.stats.sent = plan.sent
            self.stats.unique = TokenTree([*plan.paths, *plan.bare]).n_unique if plan.bare else stream.tree.n_unique
            self.stats.clocks["plan"] = time.perf_counter() - started
            if plan.paths:
                yield from self._prefill(stream, plan, scorer, requests)
            yield from self._generate(stream, plan, scorer, requests)
        finally:
            scorer.close()

    def _check_lengths(self, requests: Sequence[Request]) -> None:
        for i, request in enumerate(requests):
            longest = longest_path(request)
            if longest > self._n_positions:
                raise UserError(
                    f"request {i + 1} needs {longest} tokens of context, there are {self._n_positions}",
                    "use fewer --shots",
                )

    def _prefill(
        self, stream: StreamPass, plan: Probes, scorer: RowScorer, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Result] | Progress]:
        checks = plan.to_check(stream.tree.n_unique)
        kept: dict[int, npt.NDArray[np.float32]] = {int(stream.row_of[k]): np.empty(0, np.float32) for k in checks}
        open_probes = np.bincount(plan.request, minlength=len(requests))
        before = time.perf_counter()
        for n_tokens, probes in stream.run(self._decoders, self._budget, scorer, kept, self._cache):
            self.stats.computed += n_tokens
            touched, counts = np.unique(plan.request[probes], return_counts=True)
            open_probes[touched] -= counts
            for i in touched[open_probes[touched] == 0].tolist():
                if isinstance(requests[i], ScoreRequest):
                    yield i, plan.scored(i, stream)
            yield Progress(self.stats.computed, self.stats.unique, self.stats.sent)
        self.stats.prefill = replace(self._decoder.stats)
        if self._cache is not None:
            self.stats.restored, self._cache.restored_tokens = self._cache.restored_tokens, 0
        self.stats.clocks["prefill"] = time.perf_counter() - before
        before = time.perf_counter()
        for k in checks:
            prefix = plan.paths[plan.path[k]][: plan.position[k] + 1]
            alone = self._decoder.alone(prefix, self._n_chunk)
            self.stats.noise = max(self.stats.noise, largest_difference(alone, kept[int(stream.row_of[k])]))
            self.stats.checked += len(prefix)
            self.stats.check_requests += 1
        self.stats.clocks["check"] = time.perf_counter() - before

    def _generate(
        self, stream: StreamPass, plan: Probes, scorer: RowScorer, requests: Sequence[Request]
    ) -> Iterator[tuple[int, Result] | Progress]:
        before = time.perf_counter()
        drafts: dict[tuple[object, ...], Draft] = {}
        twins: dict[int, list[int]] = {}  # equal prompts with equal candidates, limits and stops: once is enough
        for i, request in enumerate(requests):
            if isinstance(request, GenerateRequest):
                texts = tuple(text.tobytes() for text in (request.prompt, *request.candidates))
                key = (texts, request.stop, request.max_new_tokens, request.until)
                limit = min(request.max_new_tokens, self._n_positions - len(request.prompt))
                draft = drafts.setdefault(key, Draft(i, request, limit, self._decoder.backend.piece))
                twins.setdefault(draft.index, []).append(i)
        if not drafts:
            return
        before_tokens = self._decoder.stats.tokens
        greedy = Greedy(self._decoder, self._budget, self._n_chunk, self.stats.noise, scorer)
        unfinished = []
        for draft in drafts.values():
            rows = plan.candidate_rows(draft.index, stream)
            greedy.verify(draft, stream.facts, plan.candidates(draft.index), rows)
            if draft.finished:
                yield from ((i, draft.result()) for i in twins[draft.index])
            else:
                unfinished.append(draft)
        for draft in greedy.finish(unfinished):
            yield from ((i, draft.result()) for i in twins[draft.index])
        self.stats.noise = greedy.noise
        self.stats.settled, self.stats.settle_s = greedy.settled, greedy.settle_s
        self.stats.checked += greedy.settled_tokens
        self.stats.computed += self._decoder.stats.tokens - before_tokens - greedy.settled_tokens
        self.stats.clocks["decode"] = time.perf_counter() - before
