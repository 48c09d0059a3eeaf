"""Rates of made-up work on contexts: packed prompts, greedy texts, decode steps; each several times, with its spread.

The prompts and the texts go through the engine's own prefill and decoding, so that a rate is that of a run with these
settings, without what a run does once: its plan, and the measurement of its noise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from orin_runner.batching.batch import Batch, BatchBuilder
from orin_runner.batching.packer import Budget
from orin_runner.batching.tree import TokenTree
from orin_runner.engine.backend import Backend
from orin_runner.engine.executor import Executor
from orin_runner.engine.greedy import Greedy
from orin_runner.engine.greedy_text import GreedyText
from orin_runner.engine.logits import RowScorer
from orin_runner.engine.noise import TextNoise
from orin_runner.engine.prefill import Prefill
from orin_runner.engine.wanted_tokens import WantedTokens
from orin_runner.requests import GenerateRequest, ScoreRequest, Tokens
from orin_runner.runner import Noise

MOST_S = 20.0
"""Behind so many seconds, the warm-up's among them, one repetition is enough."""
PREFIX, QUESTION, QUESTIONS = 256, 96, 8
"""Tokens that a family of prompts shares and that each has of its own, and prompts of a family: 1,024 tokens."""
CHOICES = 4
"""Of one token each, as letters are."""
TEXT_PROMPT, TEXT_PROMPTS, NEW_TOKENS = 32, 16, 64
"""Own tokens of a prompt that a text follows, prompts of a family, and tokens of each text. With 16 tokens the run was
mostly prefill: on an H100 two contexts came out 1.19 times as fast as three, and were 0.86 times as fast on BBH, whose
texts had 82."""
STEPS, DEPTH = 16, 256
"""Decode steps of a repetition, and tokens before them, which all texts share."""


@dataclass(frozen=True, slots=True)
class Rate:
    """An amount a second, measured several times.

    Attributes:
        samples: of each repetition.
        warm_up: of the one before them, which does not count.
    """

    samples: tuple[float, ...]
    warm_up: float

    @property
    def mean(self) -> float:
        """Over all repetitions."""
        return float(np.mean(self.samples))

    @property
    def sd(self) -> float | None:
        """Standard deviation of one repetition, as llama-bench has it; None of a single one."""
        return float(np.std(self.samples, ddof=1)) if len(self.samples) > 1 else None

    def together(self, other: Rate) -> Rate:
        """The repetitions of both, ``other`` being of the same and later."""
        return Rate(self.samples + other.samples, self.warm_up)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a rate is measured: so many repetitions and so many seconds at least, the warm-up left out."""

    runs: int = 3
    seconds: float = 2.0


def repeated(once: Callable[[], float], pace: Pace, clock: Callable[[], float] = time.perf_counter) -> Rate:
    """How much ``once`` does in a second; it returns the amount.

    Args:
        once: called once to warm up, then until the pace is reached, or ``MOST_S`` are over.
        pace: how long.
        clock: seconds.
    """
    samples: list[float] = []
    began = before = clock()
    while True:
        amount = once()
        now = clock()
        samples.append(amount / (now - before))
        before = now
        if len(samples) == 1:
            warm = now
            continue
        enough = len(samples) > pace.runs and now - warm >= pace.seconds
        if enough or now - began >= MOST_S:
            return Rate(tuple(samples[1:]), samples[0])


def letters(n_families: int, n_vocab: int, n_positions: int) -> list[ScoreRequest]:
    """Prompts with choices of one token each, as few-shot questions with letters have them, of random tokens.

    Args:
        n_families: each of ``QUESTIONS`` prompts with a common beginning.
        n_vocab: tokens are below it.
        n_positions: that a sequence may have; where they are few, prompts are shorter.
    """
    choices = tuple(np.array([token % n_vocab], dtype=np.int32) for token in range(CHOICES))
    return [ScoreRequest(prompt, choices) for prompt in _prompts(n_families, QUESTIONS, QUESTION, n_vocab, n_positions)]


def texts(n_families: int, n_vocab: int, n_positions: int) -> list[GenerateRequest]:
    """Prompts that ``NEW_TOKENS`` greedy tokens each follow, whatever they are; the rest as ``letters`` has it.

    Where positions are few, half of them at most are for these tokens.
    """
    n_new = min(NEW_TOKENS, n_positions // 2)
    prompts = _prompts(n_families, TEXT_PROMPTS, TEXT_PROMPT, n_vocab, n_positions - n_new)
    return [GenerateRequest(prompt, frozenset(), n_new) for prompt in prompts]


def _prompts(n_families: int, n_each: int, own: int, n_vocab: int, n_positions: int) -> list[Tokens]:
    rng = np.random.default_rng(1)
    own = max(1, min(own, n_positions // 2))
    shared = min(PREFIX, n_positions - own - 1)
    found = []
    for _ in range(n_families):
        beginning = rng.integers(0, n_vocab, shared, dtype=np.int32)
        found += [np.concatenate([beginning, rng.integers(0, n_vocab, own, dtype=np.int32)]) for _ in range(n_each)]
    return found


class Contexts:
    """Contexts of one size whose rates are measured; what is in their caches is not kept.

    Args:
        backends, budget, n_threads: as ``Engine`` takes them.
    """

    def __init__(self, backends: Sequence[Backend], budget: Budget, n_threads: int) -> None:
        self._executors = [Executor(backend, own_thread=len(backends) > 1) for backend in backends]
        self._budget = budget
        self._scorer = RowScorer(n_threads)
        self._depth = 0

    def close(self) -> None:
        """Wait for all threads: the contexts may be freed then."""
        for executor in self._executors:
            executor.rest()
        self._scorer.close()

    def score(self, requests: Sequence[ScoreRequest]) -> float:
        """Answer ``requests``; the distinct tokens that had to be computed."""
        prefill = Prefill(WantedTokens(requests))
        for _ in prefill.run(self._executors, self._budget, self._scorer, None, _nothing):
            pass
        return prefill.tree.n_unique

    def generate(self, requests: Sequence[GenerateRequest]) -> float:
        """Answer ``requests``; the distinct tokens that had to be computed, whatever texts had to give way for cells.

        No position is settled: how many there would be depends on the model.
        """
        piece = self._executors[0].backend.piece
        made = [GreedyText(i, request, request.max_new_tokens, (), piece) for i, request in enumerate(requests)]
        tree = TokenTree([text.prefix() for text in made])
        greedy = Greedy(
            self._executors, self._budget, _NoNoise(self._executors[0]), self._scorer, None, on_batch=_nothing
        )
        for _ in greedy.finish(made, tree):
            pass
        return tree.n_unique + sum(max(0, len(text.tokens) - 1) for text in made)

    def decode(self, n_texts: int) -> float:
        """``STEPS`` steps of ``n_texts`` texts side by side on one context, behind what ``begin_texts`` has put there.

        Returns:
            The tokens of the steps.
        """
        executor = self._executors[0]
        for seq in range(n_texts):
            executor.backend.cut(seq, self._depth)
        for step in range(STEPS):
            batch = _step(n_texts, self._depth + step, executor.backend.n_vocab)
            executor.prepare(batch)
            executor.submit(batch, n_texts)
            self._scorer.facts(executor.rows(n_texts))
        return STEPS * n_texts

    def begin_texts(self, n_texts: int, n_positions: int) -> None:
        """Put the tokens into the cache that ``decode`` goes on from; fewer than ``DEPTH`` for short sequences."""
        executor = self._executors[0]
        executor.backend.clear()
        self._depth = depth = max(1, min(DEPTH, n_positions - STEPS))
        builder = BatchBuilder()
        builder.add(np.random.default_rng(1).integers(0, executor.backend.n_vocab, depth, dtype=np.int32), 0, 0)
        for seq in range(1, n_texts):
            builder.share(0, depth, 0, seq)
        builder.flag(np.array([depth - 1]))
        batch = builder.build()
        executor.prepare(batch)
        executor.submit(batch)
        executor.rows(1)


def _step(n_texts: int, position: int, n_vocab: int) -> Batch:
    """A token of each text."""
    builder = BatchBuilder()
    for seq in range(n_texts):
        builder.add(np.array([(seq + position) % n_vocab], dtype=np.int32), position, seq)
    builder.flag(np.arange(n_texts))
    return builder.build()


class _NoNoise(TextNoise):
    """A noise that is known and so small that nothing is a near-tie."""

    @property
    def found(self) -> Noise:
        return Noise(n=1)


def _nothing() -> None:
    """Nobody wants to know how far it is."""
