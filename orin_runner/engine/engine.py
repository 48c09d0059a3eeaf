"""Requests in, results out: prefill, measurement of the noise, and greedy text.

The engine knows requests, tokens and a backend. It does not know tasks, data sets, files or GGUF.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from orin_runner.batching.packer import Budget
from orin_runner.batching.tree import TokenTree
from orin_runner.engine.backend import Backend
from orin_runner.engine.device_clock import DeviceClock
from orin_runner.engine.executor import CANONICAL_CHUNK, Executor
from orin_runner.engine.greedy import Greedy
from orin_runner.engine.greedy_text import GreedyText
from orin_runner.engine.logits import RowScorer
from orin_runner.engine.noise import Noise, rows_to_check
from orin_runner.engine.prefill import Prefill
from orin_runner.engine.prompt_cache import PromptCache
from orin_runner.engine.wanted_tokens import WantedTokens
from orin_runner.errors import UserError
from orin_runner.requests import GenerateRequest, Request, Result, longest_path
from orin_runner.runner import DecodeStats, OnProgress, Progress, RunStats, no_progress


class Engine:
    """Runs requests on one context or on several in turn (``orin_runner.runner.Runner``).

    Args:
        backends: empty contexts of the same model and sizes.
        budget: limits of one decode call, and of one context.
        n_chunk: tokens per decode call of the canonical shape, at most every budget's n_batch: texts decided in that
            shape must not depend on the budget.
        n_positions: longest sequence the model is made for.
        n_threads: threads for turning logits into log-probabilities.
        draft: verify the candidates that generation requests name; without it they are ignored.
        cache: states of shared prefixes kept between runs.

    Attributes:
        stats: what the last run cost.
        max_context: tokens of context that a request may need.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        budget: Budget,
        *,
        n_positions: int,
        n_chunk: int = CANONICAL_CHUNK,
        n_threads: int = 2,
        draft: bool = True,
        cache: PromptCache | None = None,
    ) -> None:
        if n_chunk > budget.n_batch:
            raise ValueError(f"the canonical shape needs {n_chunk} tokens a call, the budget allows {budget.n_batch}")
        self._executors = [Executor(backend, n_chunk, watched=len(backends) > 1) for backend in backends]
        self._budget = budget
        self._n_threads = n_threads
        self._draft = draft
        self._cache = cache
        self.max_context = min(n_positions, budget.n_cells)
        self.stats = RunStats()

    def run(self, requests: Sequence[Request], on_progress: OnProgress = no_progress) -> Iterator[tuple[int, Result]]:
        """Answer every request, in whatever order is fastest.

        Args:
            requests: what is asked.
            on_progress: called behind the results of each batch.

        Yields:
            (index of the request, its result), each exactly once.

        Raises:
            UserError: a request does not fit the context; nothing has been computed then.
            DecodeError, LostPrefixError: the device failed, or a prefix was lost.
        """
        answers, checks = DecodeStats(), DecodeStats()
        clock = DeviceClock(answers)
        for executor in self._executors:
            executor.count_into(clock, checks)
        noise = Noise(self._executors[0])
        stats = self.stats = RunStats(near_tie=noise.near_tie)

        def keep_stats() -> None:
            stats.computed, stats.checked, stats.device = answers.tokens, checks.tokens, answers
            stats.noise, stats.near_tie, stats.check_requests = noise.largest, noise.near_tie, noise.n_rows

        def on_batch() -> None:
            keep_stats()
            on_progress(Progress(stats.computed, stats.unique, stats.sent))

        started = time.perf_counter()
        self._check_lengths(requests)
        wanted = WantedTokens(requests)
        texts, twins = self._texts(requests)
        scorer = RowScorer(self._n_threads)
        try:
            prefill = Prefill(wanted)
            paths = [path for text in texts for path in text.paths()]
            tree = TokenTree(paths)
            stats.sent = wanted.sent + sum(len(r.prompt) for r in requests if isinstance(r, GenerateRequest))
            planned = prefill.tree.n_unique + tree.n_unique
            if wanted.paths and paths:  # scores and texts may share beginnings
                planned = TokenTree([*wanted.paths, *paths]).n_unique
            stats.unique = planned
            stats.clocks["plan"] = time.perf_counter() - started
            if wanted.paths:
                yield from self._score(prefill, wanted, noise, scorer, on_batch)
            if texts:
                yield from self._generate(texts, twins, tree, noise, scorer, on_batch)
            keep_stats()
            if stats.unique > planned:  # texts may share tokens with one another, and with other prompts
                paths += [text.computed() for text in texts]
                stats.unique = TokenTree([*wanted.paths, *paths]).n_unique
            if self._cache is not None:
                stats.restored, self._cache.restored_tokens = self._cache.restored_tokens, 0
        finally:
            for executor in self._executors:
                executor.rest()
            scorer.close()

    def _check_lengths(self, requests: Sequence[Request]) -> None:
        for i, request in enumerate(requests):
            longest = longest_path(request)
            if longest > self.max_context:
                raise UserError(
                    f"request {i + 1} needs {longest} tokens of context, there are {self.max_context}",
                    "use fewer --shots",
                )

    def _score(
        self,
        prefill: Prefill,
        wanted: WantedTokens,
        noise: Noise,
        scorer: RowScorer,
        on_batch: Callable[[], None],
    ) -> Iterator[tuple[int, Result]]:
        """The results of score requests; afterwards the noise is measured on some of their last rows."""
        last = wanted.last_of_each()
        checked = [int(last[i]) for i in rows_to_check(wanted.position[last] + 1, prefill.tree.n_unique)]
        prefill.keep(checked)
        before = time.perf_counter()

        def on_prefill_batch() -> None:
            self.stats.clocks["prefill"] = time.perf_counter() - before
            on_batch()

        yield from prefill.run(self._executors, self._budget, scorer, self._cache, on_prefill_batch)
        self.stats.clocks["prefill"] = time.perf_counter() - before
        before = time.perf_counter()
        noise.measure([(wanted.path_to(k), prefill.kept(k)) for k in checked])
        self.stats.clocks["check"] = time.perf_counter() - before

    def _texts(self, requests: Sequence[Request]) -> tuple[list[GreedyText], dict[int, list[int]]]:
        """A text for each that is asked for, and the requests that it answers, by its index.

        Equal prompts with equal candidates, bounds and stops are one text: once is enough.
        """
        texts: dict[tuple[object, ...], GreedyText] = {}
        twins: dict[int, list[int]] = {}
        piece = self._executors[0].backend.piece
        for i, request in enumerate(requests):
            if isinstance(request, GenerateRequest):
                key = (
                    tuple(text.tobytes() for text in (request.prompt, *request.candidates)),
                    (request.stop, request.max_new_tokens, request.until),
                )
                room = self.max_context - len(request.prompt)
                fitting = [c for c in request.candidates if self._draft and len(c) <= room]
                bound = min(request.max_new_tokens, room)
                text = texts.setdefault(key, GreedyText(i, request, bound, fitting, piece))
                twins.setdefault(text.index, []).append(i)
        return list(texts.values()), twins

    def _generate(
        self,
        texts: Sequence[GreedyText],
        twins: dict[int, list[int]],
        tree: TokenTree,
        noise: Noise,
        scorer: RowScorer,
        on_batch: Callable[[], None],
    ) -> Iterator[tuple[int, Result]]:
        """The results of generation requests."""
        stats = self.stats
        before = time.perf_counter()

        def on_decode_batch() -> None:
            stats.clocks["decode"] = time.perf_counter() - before
            on_batch()

        greedy = Greedy(self._executors, self._budget, noise, scorer, self._cache, on_decode_batch)
        for text in greedy.finish(texts, tree):
            stats.unique += text.n_decoded()
            stats.sent += len(twins[text.index]) * (len(text.computed()) - len(text.request.prompt))
            yield from ((i, text.result()) for i in twins[text.index])
        stats.settled, stats.settle_s = greedy.settled, greedy.settle_s
        stats.clocks["decode"] = time.perf_counter() - before
