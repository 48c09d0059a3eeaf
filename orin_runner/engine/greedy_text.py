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
        candidates: texts it is likely to equal.
        piece: the bytes of a token.
        tail: the end of the text, long enough that the next token may complete a stop text.
        tokens: the text, stop token excluded.
        margin: smallest lead so far, in nats.
        logprob: sum of the log-probabilities of all steps.
        stopped: a stop token or a stop text has ended it.
        decode_steps: as in ``Generated``.
        steps: (token, lead, log-probability, drafted) of every accepted token, a stop token included.
        alive: candidates that begin with the text so far.
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
    steps: list[tuple[int, float, float, bool]] = field(default_factory=list)
    alive: Sequence[Tokens] = ()
    open: list[int] = field(default_factory=list)
    lost: bool = False

    def __post_init__(self) -> None:
        self.alive = self.candidates

    @property
    def finished(self) -> bool:
        return self.stopped or self.lost or len(self.tokens) >= self.max_tokens

    @property
    def drafted(self) -> int:
        """As in ``Generated``."""
        return sum(drafted for _, _, _, drafted in self.steps[: len(self.tokens)])

    def prefix(self, depth: int | None = None) -> Tokens:
        """Prompt and text so far, or its first ``depth`` tokens."""
        return np.concatenate([self.request.prompt, np.array(self.tokens[:depth], dtype=np.int32)])

    def ahead(self) -> Tokens:
        """What the first candidate that begins with the text so far has after it; empty where there is none.

        Of what the text's bound allows all but the last token, which no row needs.
        """
        n = len(self.tokens)
        rests = (candidate[n : self.max_tokens - 1] for candidate in self.alive)
        return next((rest for rest in rests if len(rest)), np.empty(0, dtype=np.int32))

    def computed(self) -> Tokens:
        """What a finished text takes: the prompt and its tokens, the last one only before a stop token."""
        return self.prefix(None if len(self.steps) > len(self.tokens) else max(0, len(self.tokens) - 1))

    def accept(self, token: int, lead: float, logprob: float, drafted: bool = False) -> None:
        """Take the next greedy token; a stop token ends the text before it, a stop text with it."""
        if not np.isfinite(logprob):
            self.lost, self.open = True, []
            return
        self.margin = min(self.margin, lead)
        self.logprob += logprob
        self.steps.append((token, lead, logprob, drafted))
        if token in self.request.stop:
            self.stopped = True
            return
        n = len(self.tokens)
        self.alive = [c for c in self.alive if n < len(c) and c[n] == token]
        self.tokens.append(token)
        if self.request.until:
            # Some tokenizers drop the space their text begins with, so it completes no stop text.
            text = self.tail + self.piece(token) if self.tail else self.piece(token).lstrip(b" ")
            stops = [stop.encode() for stop in self.request.until]
            self.stopped = any(stop in text for stop in stops)
            self.tail = text[-max(map(len, stops)) :]

    def follow(self, facts: RowFacts, row: int, near_tie: float, draft: Sequence[int] = ()) -> int:
        """Take the argmax of ``row``, and while it is the next token of ``draft`` that of the row after it.

        Where one leads by less than ``near_tie``, note that it is to be settled.

        Returns:
            How many tokens of ``draft`` were accepted.
        """
        accepted = 0
        for proposed in [*draft, None]:
            at = row + accepted
            if facts.lead[at] < near_tie:
                self.open.append(len(self.steps))
            token = int(facts.best[at])
            self.accept(token, float(facts.lead[at]), float(facts.top[at]), token == proposed)
            if self.lost or token != proposed:
                break
            accepted += 1
            if self.finished:
                break
        return accepted

    def open_below(self, near_tie: float) -> None:
        """Note every position that leads by less than ``near_tie`` as to be settled."""
        self.open = [] if self.lost else [at for at, (_, lead, _, _) in enumerate(self.steps) if lead < near_tie]

    def settle(self, depth: int, token: int, lead: float, logprob: float) -> None:
        """Take the token at ``depth`` as the canonical shape has it; what followed another one there is dropped."""
        stands = depth < len(self.steps) and self.steps[depth][0] == token
        later = self.steps[depth + 1 :] if stands else []
        self.open = [at for at in self.open if at != depth] if stands else []
        steps = [*self.steps[:depth], (token, lead, logprob, stands and self.steps[depth][3]), *later]
        self.tokens, self.margin, self.logprob, self.stopped, self.lost, self.steps = [], np.inf, 0.0, False, False, []
        self.tail, self.alive = b"", self.candidates
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
