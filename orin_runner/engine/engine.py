"""Requests in, results out: the tree pass, the self-check, and greedy text.

The engine knows requests, tokens and a backend; it does not know tasks, data sets, files or GGUF.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import numpy.typing as npt

from orin_runner.batching.packer import Budget
from orin_runner.batching.tree import TokenTree
from orin_runner.engine.executor import Backend, Decoder, DecodeStats
from orin_runner.engine.greedy import Greedy
from orin_runner.engine.greedy_text import Draft
from orin_runner.engine.logits import RowScorer, largest_difference, near_tie
from orin_runner.engine.prefill import StreamPass
from orin_runner.engine.prompt_cache import PromptCache
from orin_runner.engine.wanted_tokens import Probes
from orin_runner.errors import UserError
from orin_runner.requests import GenerateRequest, Request, Result, longest_path


@dataclass(slots=True)
class RunStats:
    """What a run cost.

    Attributes:
        sent: tokens as a tool without sharing would compute them: the prompt once with each of its continuations, once
            for all those of a single token; and the greedy texts.
        unique: distinct tokens in the prefix tree of all paths: prompts with their continuations or candidates, and the
            greedy texts, as far as they stand in no candidate.
        computed: tokens computed for the answers (tree pass and decoding).
        checked: tokens computed a second time for the self-check and for settling near-ties.
        noise: largest difference of any log-probability between a row of the run and the same row alone.
        check_requests: how many rows that was measured on.
        settled: positions of greedy texts decided in the canonical shape.
        settle_s: seconds of the decode clock that these took, and the rows that the noise was measured on.
        restored: tokens whose state came from the prompt cache instead of being computed.
        clocks: seconds per stage: plan, prefill, decode, check.
        device: decode calls for the answers.
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
    device: DecodeStats = field(default_factory=DecodeStats)

    @property
    def near_tie(self) -> float:
        """A lead below this may be rounding."""
        return near_tie(self.noise)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: tokens computed so far, and the unique ones and those sent of all requests.

    The last two grow by the tokens of the texts that are finished.
    """

    computed: int
    unique: int
    sent: int


class Engine:
    """Runs requests on one context or on two.

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
        stats, checks = DecodeStats(), DecodeStats()
        for decoder in self._decoders:
            decoder.stats, decoder.checks = stats, checks
        started = time.perf_counter()
        self._check_lengths(requests)
        probes = Probes(requests)
        drafts, twins = self._drafts(requests)
        scorer = RowScorer(self._n_threads)
        try:
            stream = StreamPass(probes.paths, probes.path, probes.position, probes.token)
            texts = [path for draft in drafts for path in draft.paths()]
            self.stats.sent = probes.sent + sum(len(r.prompt) for r in requests if isinstance(r, GenerateRequest))
            self.stats.unique = TokenTree([*probes.paths, *texts]).n_unique if texts else stream.tree.n_unique
            self.stats.clocks["plan"] = time.perf_counter() - started
            planned = self.stats.unique
            for event in chain(self._prefill(stream, probes, scorer), self._generate(drafts, twins, scorer)):
                self.stats.computed, self.stats.checked = stats.tokens, checks.tokens
                yield event or Progress(stats.tokens, self.stats.unique, self.stats.sent)
            self.stats.computed, self.stats.checked = stats.tokens, checks.tokens
            if self.stats.unique > planned:  # texts may share tokens with one another, and with other prompts
                texts += [draft.computed() for draft in drafts]
                self.stats.unique = TokenTree([*probes.paths, *texts]).n_unique
            self.stats.device = replace(stats)
            if self._cache is not None:
                self.stats.restored, self._cache.restored_tokens = self._cache.restored_tokens, 0
        finally:
            for decoder in self._decoders:
                decoder.rest()
            scorer.close()

    def _check_lengths(self, requests: Sequence[Request]) -> None:
        for i, request in enumerate(requests):
            longest = longest_path(request)
            if longest > self._n_positions:
                raise UserError(
                    f"request {i + 1} needs {longest} tokens of context, there are {self._n_positions}",
                    "use fewer --shots",
                )

    def _prefill(self, stream: StreamPass, probes: Probes, scorer: RowScorer) -> Iterator[tuple[int, Result] | None]:
        """The tree pass: the results of score requests, and None after each batch."""
        if not probes.paths:
            return
        checks = probes.to_check(stream.tree.n_unique)
        kept: dict[int, npt.NDArray[np.float32]] = {int(stream.row_of[k]): np.empty(0, np.float32) for k in checks}
        open_probes = np.bincount(probes.request)
        before = time.perf_counter()
        for answered in stream.run(self._decoders, self._budget, scorer, kept, self._cache):
            touched, counts = np.unique(probes.request[answered], return_counts=True)
            open_probes[touched] -= counts
            yield from ((i, probes.scored(i, stream)) for i in touched[open_probes[touched] == 0].tolist())
            yield None
        self.stats.clocks["prefill"] = time.perf_counter() - before
        before = time.perf_counter()
        for k in checks:
            prefix = probes.paths[probes.path[k]][: probes.position[k] + 1]
            alone = self._decoder.alone(prefix, self._n_chunk)
            self.stats.noise = max(self.stats.noise, largest_difference(alone, kept[int(stream.row_of[k])]))
            self.stats.check_requests += 1
        self.stats.clocks["check"] = time.perf_counter() - before

    def _drafts(self, requests: Sequence[Request]) -> tuple[list[Draft], dict[int, list[int]]]:
        """A draft for each text that is asked for, and the requests that it answers, by its index.

        Equal prompts with equal candidates, limits and stops are one text: once is enough.
        """
        drafts: dict[tuple[object, ...], Draft] = {}
        twins: dict[int, list[int]] = {}
        for i, request in enumerate(requests):
            if isinstance(request, GenerateRequest):
                key = (
                    tuple(text.tobytes() for text in (request.prompt, *request.candidates)),
                    (request.stop, request.max_new_tokens, request.until),
                )
                room = self._n_positions - len(request.prompt)
                fitting = [c for c in request.candidates if self._draft and len(c) <= room]
                limit = min(request.max_new_tokens, room)
                draft = drafts.setdefault(key, Draft(i, request, limit, fitting, self._decoder.backend.piece))
                twins.setdefault(draft.index, []).append(i)
        return list(drafts.values()), twins

    def _generate(
        self, drafts: Sequence[Draft], twins: dict[int, list[int]], scorer: RowScorer
    ) -> Iterator[tuple[int, Result] | None]:
        """Greedy texts, and None after each batch."""
        if not drafts:
            return
        before = time.perf_counter()
        greedy = Greedy(self._decoders, self._budget, self._n_chunk, self.stats.noise, scorer, self._cache)
        for finished in greedy.finish(drafts):
            for draft in finished:
                self.stats.unique += draft.n_decoded()
                self.stats.sent += len(twins[draft.index]) * (len(draft.computed()) - len(draft.request.prompt))
                yield from ((i, draft.result()) for i in twins[draft.index])
            yield None
        self.stats.noise = greedy.noise
        self.stats.check_requests += greedy.n_samples
        self.stats.settled, self.stats.settle_s = greedy.settled, greedy.settle_s
        self.stats.clocks["decode"] = time.perf_counter() - before
