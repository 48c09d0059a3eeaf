"""The nouns of the engine: what is asked of the model and what it answered.

A request is either scored (log-probabilities of given continuations) or generated (greedy text). Either is a set of
token paths. Nothing here knows tasks, files or llama.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Log-probabilities of each continuation after one prompt.

    Attributes:
        prompt: int32 ``[n]``, n >= 1.
        continuations: one int32 array per choice, each of at least one token.
        scored: per continuation, how many of its last tokens are wanted; empty where all are. The tokens before them
            are context. With ``prompt=[1], continuations=([7, 8, 9],), scored=(2,)`` the log-probabilities of 8 and 9
            are wanted, after [1, 7] and [1, 7, 8]. The prompt may then be empty.
    """

    prompt: Tokens
    continuations: tuple[Tokens, ...]
    scored: tuple[int, ...] = ()

    @property
    def n_scored(self) -> tuple[int, ...]:
        """Tokens that are wanted of each continuation."""
        return self.scored or tuple(len(continuation) for continuation in self.continuations)


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """Greedy text after one prompt.

    Attributes:
        prompt: int32 ``[n]``, n >= 1.
        stop: token ids that end the text; the stop token is not part of the output.
        max_new_tokens: upper bound on generated tokens, stop token excluded.
        candidates: token arrays the text is likely to equal (the answer choices), without stop token. One that
            begins like the text is verified, several tokens in a decode step; none changes the result.
        until: texts that end the text; one may be the name of a special token. The token that completes one is the
            last of the output; whoever decodes it cuts the text before the first.
    """

    prompt: Tokens
    stop: frozenset[int]
    max_new_tokens: int
    candidates: tuple[Tokens, ...] = ()
    until: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """Result of a ScoreRequest.

    Attributes:
        logprobs: per continuation, the natural-log probability of each token that is wanted, float64 ``[n_scored]``.
        greedy: per continuation, whether each of these is the argmax of its row.
    """

    logprobs: tuple[npt.NDArray[np.float64], ...]
    greedy: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Generated:
    """Result of a GenerateRequest.

    Attributes:
        tokens: the greedy continuation, int32, stop token excluded.
        stopped: whether a stop token or a stop text ended it (otherwise max_new_tokens or the context did).
        margin: smallest difference, over the generated positions, between the best and the second-best logit.
        logprob: sum of the log-probabilities of the tokens and of the stop token, if one ended it.
        decode_steps: decode calls beyond the prefill that this request took part in.
        drafted: how many of the output's tokens were verified as drafts of candidates, several in a decode step.
    """

    tokens: Tokens
    stopped: bool
    margin: float
    logprob: float
    decode_steps: int
    drafted: int


@dataclass(frozen=True, slots=True)
class Failed:
    """In place of a result: the request cannot be answered, others can. ``reason`` says why in one line."""

    reason: str


NOT_FINITE = "the model's logits are not finite (NaN or Inf)"
"""Why a request failed whose rows of logits hold no numbers."""


def flaws(requests: Sequence[ScoreRequest | GenerateRequest], n_vocab: int) -> dict[int, str]:
    """Why no model of ``n_vocab`` tokens can answer some of these, in one line each, by index."""
    found = {i: why for i, request in enumerate(requests) if (why := _form_flaw(request)) is not None}
    # All tokens at once first: an array of them for each of thousands takes ten times as long.
    tokens = np.concatenate([np.empty(0, np.int32), *(path for request in requests for path in _arrays(request))])
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < n_vocab:
        for i, request in enumerate(requests):
            own = np.concatenate(_arrays(request))
            beyond = own[(own < 0) | (own >= n_vocab)]
            if len(beyond):
                found.setdefault(i, f"token id {beyond[0]} is not among the model's {n_vocab:,}")
    return found


def _arrays(request: ScoreRequest | GenerateRequest) -> tuple[Tokens, ...]:
    return (
        request.prompt,
        *(request.continuations if isinstance(request, ScoreRequest) else request.candidates),
    )


def _form_flaw(request: ScoreRequest | GenerateRequest) -> str | None:
    """What is wrong with a request whatever the model's vocabulary."""
    if isinstance(request, GenerateRequest):
        return None if len(request.prompt) else "its prompt has no token"
    if not request.continuations or len(request.continuations) != len(request.n_scored):
        return "it does not say what is to be scored"
    for path, n in zip(request.continuations, request.n_scored, strict=True):
        if not 1 <= n <= len(path):
            return f"{n} tokens of a continuation of {len(path)} cannot be scored"
        if len(request.prompt) + len(path) == n:
            return "its context has no token"
    return None


def longest_path(request: ScoreRequest | GenerateRequest) -> int:
    """Tokens of context that ``request`` cannot do without: the prompt and all but the last token of a continuation."""
    if isinstance(request, ScoreRequest):
        return len(request.prompt) + max(len(c) for c in request.continuations) - 1
    return len(request.prompt)


def context_tokens(request: ScoreRequest | GenerateRequest) -> int:
    """Tokens of context ``request`` may come to use: ``longest_path``, and the longest text it allows."""
    return longest_path(request) + (request.max_new_tokens if isinstance(request, GenerateRequest) else 0)


def begun(prompt: Tokens, prefix: int | None) -> Tokens:
    """``prompt``, or ``prefix`` where that has no token: something has to stand before the first one that is asked."""
    return prompt if len(prompt) or prefix is None else np.array([prefix], dtype=np.int32)


def common_prefix(a: Tokens, b: Tokens) -> int:
    """Number of leading tokens that ``a`` and ``b`` share."""
    n = min(len(a), len(b))
    differs = a[:n] != b[:n]
    first = int(differs.argmax()) if n else 0
    return first if n and differs[first] else n


Request = ScoreRequest | GenerateRequest
Result = Scored | Generated
