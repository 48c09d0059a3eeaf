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
from orin_runner.engine.noise import TextNoise, score_noise
from orin_runner.engine.prefill import Prefill
from orin_runner.engine.prompt_cache import PromptCache
from orin_runner.engine.wanted_tokens import WantedTokens
from orin_runner.errors import UserError
from orin_runner.requests import Failed, GenerateRequest, Request, Result, Tokens, longest_path
from orin_runner.runner import DecodeStats, OnProgress, RunStats, no_progress


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
        self._executors = [Executor(backend, n_chunk, own_thread=len(backends) > 1) for backend in backends]
        self._budget = budget
        self._n_threads = n_threads
        self._draft = draft
        self._cache = cache
        self.max_context = min(n_positions, budget.n_cells)
        self.stats = RunStats()
        self._scores_measured = False
        self._text_noise = TextNoise(self._executors[0])
        self._give_back: Callable[[float], list[int]] = _nothing

    def give_back(self, share: float) -> list[int]:
        """Leave requests of the run that goes on to others; to be called from its ``on_progress``.

        Args:
            share: about how much of what has not begun.

        Returns:
            Their indices; the run yields nothing for them. None where too little is left.
        """
        return self._give_back(share)

    def run(
        self,
        requests: Sequence[Request],
        on_progress: OnProgress = no_progress,
        *,
        goes_on: bool = False,
        n_engines: int = 1,
    ) -> Iterator[tuple[int, Result | Failed]]:
        """Answer every request, in whatever order is fastest.

        Args:
            requests: what is asked.
            on_progress: called before the first batch and behind the results of each.
            goes_on: these belong to the run before: what noise that has measured is not measured again.
            n_engines: how many share the run. Each measures its part of the noise of scores.

        Yields:
            (index of the request, its result), each exactly once, but for those that ``give_back`` has left to others.

        Raises:
            UserError: a request does not fit the context; nothing has been computed then.
            DecodeError, LostPrefixError: the device failed, or a prefix was lost.
        """
        if not goes_on:
            self._scores_measured, self._text_noise = False, TextNoise(self._executors[0])
        answers, checks = DecodeStats(), DecodeStats()
        clock = DeviceClock(answers)
        for executor in self._executors:
            executor.count_into(clock, checks)
        stats = self.stats = RunStats()
        cache = self._cache
        restored, asked = (0, 0) if cache is None else (cache.restored_tokens, cache.asked)

        def keep_stats() -> None:
            stats.computed, stats.checked, stats.device = answers.tokens, checks.tokens, answers
            if cache is not None:
                stats.restored, stats.cacheable = cache.restored_tokens - restored, cache.asked - asked

        def on_batch() -> None:
            keep_stats()
            on_progress(stats.progress)

        started = time.perf_counter()
        self._check_lengths(requests)
        wanted = WantedTokens(requests)
        texts, twins = self._texts(requests)
        scorer = RowScorer(self._n_threads)
        try:
            prefill = Prefill(wanted)
            prompts = [text.request.prompt for text in texts]
            tree = TokenTree(prompts)
            stats.sent = wanted.sent + sum(len(r.prompt) for r in requests if isinstance(r, GenerateRequest))
            stats.unique = _distinct(prefill, wanted, prompts) if wanted.paths else tree.n_unique
            stats.clocks["plan"] = time.perf_counter() - started
            on_batch()
            if wanted.paths:
                yield from self._score(prefill, wanted, scorer, on_batch, n_engines)
            if texts:
                yield from self._generate(texts, twins, tree, scorer, on_batch)
                # Texts may share tokens with one another, and with other prompts.
                stats.unique = _distinct(prefill, wanted, [text.computed() for text in texts])
            keep_stats()
        finally:
            self._give_back = _nothing
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
        scorer: RowScorer,
        on_batch: Callable[[], None],
        n_engines: int,
    ) -> Iterator[tuple[int, Result | Failed]]:
        """The results of score requests; afterwards their noise is measured, once a run."""
        before = time.perf_counter()

        def on_prefill_batch() -> None:
            self.stats.clocks["prefill"] = time.perf_counter() - before
            on_batch()

        self._give_back = prefill.give_back
        yield from prefill.run(self._executors, self._budget, scorer, self._cache, on_prefill_batch)
        self._give_back = _nothing
        self.stats.clocks["prefill"] = time.perf_counter() - before
        if self._scores_measured:
            return
        self._scores_measured = True
        before = time.perf_counter()
        self.stats.score_noise = score_noise(
            self._executors[0],
            wanted,
            prefill.logprobs,
            n_computed=self.stats.computed,
            n_engines=n_engines,
            most_rows=self._budget.n_outputs,
        )
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
                bound = min(request.max_new_tokens, room)
                candidates = request.candidates if self._draft else ()
                text = texts.setdefault(key, GreedyText(i, request, bound, candidates, piece))
                twins.setdefault(text.index, []).append(i)
        return list(texts.values()), twins

    def _generate(
        self,
        texts: Sequence[GreedyText],
        twins: dict[int, list[int]],
        tree: TokenTree,
        scorer: RowScorer,
        on_batch: Callable[[], None],
    ) -> Iterator[tuple[int, Result | Failed]]:
        """The results of generation requests."""
        stats, noise = self.stats, self._text_noise
        measured = bool(noise.found.n)
        before = time.perf_counter()

        def keep_noise() -> None:
            if not measured:
                stats.text_noise = noise.found

        def on_decode_batch() -> None:
            stats.clocks["decode"] = time.perf_counter() - before
            keep_noise()
            on_batch()

        greedy = Greedy(self._executors, self._budget, noise, scorer, self._cache, on_decode_batch)
        self._give_back = lambda share: [i for text in greedy.give_back(share) for i in twins[text.index]]
        for text in greedy.finish(texts, tree):
            n = len(text.computed()) - len(text.request.prompt)
            stats.unique += n
            stats.sent += len(twins[text.index]) * n
            yield from ((i, text.result()) for i in twins[text.index])
        keep_noise()
        stats.settled, stats.settle_s = greedy.settled, greedy.settle_s
        stats.clocks["decode"] = time.perf_counter() - before


def _nothing(_share: float) -> list[int]:
    """There is nothing to give back."""
    return []


def _distinct(prefill: Prefill, wanted: WantedTokens, texts: Sequence[Tokens]) -> int:
    """Distinct tokens of the score requests' paths and these; both may share beginnings."""
    return TokenTree([*wanted.paths, *texts]).n_unique if texts else prefill.tree.n_unique
