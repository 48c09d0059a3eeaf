"""A greedy text in the making: what is known of it, and how it grows by the argmax of one row after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from orin_runner.engine.logits import RowFacts
from orin_runner.requests import NOT_FINITE, Failed, Generated, GenerateRequest, Tokens


@dataclass(slots=True)
class GreedyText:
    """The request it answers, and the text so far.

    Attributes:
        index: of the request in its list.
        request: what is asked.
        max_tokens: most tokens, those that fit into the context.
        candidates: texts it is likely to equal, of the request's those that fit into the context.
        piece: the bytes of a token.
        tail: the end of the text, long enough that the next token may complete a stop text.
        tokens: the text, stop token excluded.
        margin: smallest lead so far, in nats.
        logprob: sum of the log-probabilities of all steps.
        stopped: a stop token or a stop text has ended it.
        decode_steps, drafted: as in ``Generated``.
        steps: (token, lead, log-probability) of every accepted token, a stop token included.
        open: positions in ``steps``, ascending, whose lead was a near-tie and which are not settled yet.
        lost: a row of logits was not finite: the text ends there, without a result.
    """

    index: int
    request: GenerateRequest
    max_tokens: int
    candidates: Sequence[Tokens]
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
    lost: bool = False

    @property
    def finished(self) -> bool:
        return self.stopped or self.lost or len(self.tokens) >= self.max_tokens

    def prefix(self, depth: int | None = None) -> Tokens:
        """Prompt and text so far, or its first ``depth`` tokens."""
        return np.concatenate([self.request.prompt, np.array(self.tokens[:depth], dtype=np.int32)])

    def ahead(self) -> list[Tokens]:
        """What is left of each candidate that begins with the text so far, each once; nothing at all if none does."""
        so_far, n = np.array(self.tokens, dtype=np.int32), len(self.tokens)
        left = {c.tobytes(): c[n:] for c in self.candidates if np.array_equal(c[:n], so_far)}
        return list(left.values()) or [so_far[:0]]

    def paths(self) -> list[Tokens]:
        """Prompt and text so far, with what is left of each candidate."""
        prefix = self.prefix()
        return [np.concatenate([prefix, rest]) for rest in self.ahead()]

    def computed(self) -> Tokens:
        """What a finished text takes: the prompt and its tokens, the last one only before a stop token."""
        return self.prefix(None if len(self.steps) > len(self.tokens) else max(0, len(self.tokens) - 1))

    def accept(self, token: int, lead: float, logprob: float) -> None:
        """Take the next greedy token; a stop token ends the text before it, a stop text with it."""
        if not np.isfinite(logprob):
            self.lost, self.open = True, []
            return
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

    def follow(self, facts: RowFacts, row: int, near_tie: float) -> None:
        """Take the row's argmax; where it leads by less than ``near_tie``, note that it is to be settled."""
        if facts.lead[row] < near_tie:
            self.open.append(len(self.steps))
        self.accept(int(facts.best[row]), float(facts.lead[row]), float(facts.top[row]))

    def open_below(self, near_tie: float) -> None:
        """Note every position that leads by less than ``near_tie`` as to be settled."""
        self.open = [] if self.lost else [at for at, (_, lead, _) in enumerate(self.steps) if lead < near_tie]

    def settle(self, depth: int, token: int, lead: float, logprob: float) -> None:
        """Take the token at ``depth`` as the canonical shape has it; what followed another one there is dropped."""
        stands = depth < len(self.steps) and self.steps[depth][0] == token
        self.drafted = self.drafted if stands else min(self.drafted, depth)
        later = self.steps[depth + 1 :] if stands else []
        self.open = [at for at in self.open if at != depth] if stands else []
        steps = [*self.steps[:depth], (token, lead, logprob), *later]
        self.tokens, self.margin, self.logprob, self.stopped, self.lost, self.steps = [], np.inf, 0.0, False, False, []
        self.tail = b""
        for step in steps:
            self.accept(*step)

    def result(self) -> Generated | Failed:
        """The text, when it is finished; that it failed where a row was not finite."""
        if self.lost:
            return Failed(NOT_FINITE)
        return Generated(
            np.array(self.tokens, dtype=np.int32),
            self.stopped,
            self.margin,
            self.logprob,
            self.decode_steps,
            self.drafted,
        )
