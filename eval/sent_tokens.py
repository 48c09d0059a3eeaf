"""What requests and their answers come to in tokens where nothing is shared, and how many of these are distinct.

The engine counts the same of its own tree (``orin_runner.runner.RunStats``: ``sent``, ``unique``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orin_runner.requests import GenerateRequest, Request, Result, Scored, ScoreRequest, Tokens, common_prefix


@dataclass(frozen=True, slots=True)
class AskedTokens:
    """What requests ask for, before anything is answered.

    Attributes:
        requests: their number.
        sent: tokens of prompts and choices where nothing is shared.
        unique: distinct ones of these.
        context: tokens before one of these, on average.
        texts: requests for a text.
        most_tokens: tokens that the texts may have together.
        open_tokens: of these, those of the texts for which there is no candidate.
        choice_tokens: tokens of the candidates of the others, of each the average.
    """

    requests: int
    sent: int
    unique: int
    context: float
    texts: int
    most_tokens: int
    open_tokens: int
    choice_tokens: float

    @classmethod
    def of(cls, requests: Sequence[Request]) -> AskedTokens:
        """Those of ``requests``."""
        texts = [request for request in requests if isinstance(request, GenerateRequest)]
        paths = [path for request in requests for path in asked_paths(request)]
        unique, before = _tree_size(paths)
        sent, context = sum(map(len, paths)), before / max(1, unique)
        most = sum(text.max_new_tokens for text in texts)
        opened = sum(text.max_new_tokens for text in texts if not text.candidates)
        choices = sum(sum(map(len, text.candidates)) / len(text.candidates) for text in texts if text.candidates)
        return cls(len(requests), sent, unique, context, len(texts), most, opened, choices)


def asked_paths(request: Request) -> list[Tokens]:
    """The token paths that a request asks for, one sequence at a time, int32.

    Returns:
        The prompt once with each continuation but its last token, once for all continuations that differ in nothing
        but that; or the prompt alone.
    """
    if not isinstance(request, ScoreRequest):
        return [request.prompt]
    suffixes = {suffix.tobytes(): suffix for suffix in (tokens[:-1] for tokens in request.continuations)}
    return [np.concatenate([request.prompt, suffix]) for suffix in suffixes.values()]


def sent_paths(request: Request, result: Result) -> list[Tokens]:
    """The token paths that answer a request one sequence at a time, int32.

    Args:
        request: what was asked.
        result: its answer, where each decode step computed one token of the text and nothing was drafted.

    Returns:
        ``asked_paths``; or the prompt with the text, whose last token is computed only if a stop token followed it.
    """
    if isinstance(request, ScoreRequest):
        return asked_paths(request)
    assert not isinstance(result, Scored)
    return [np.concatenate([request.prompt, result.tokens[: result.decode_steps]])]


def distinct_tokens(paths: Sequence[Tokens]) -> int:
    """Tokens of the prefix tree of ``paths``: those that follow equal beginnings are one."""
    return _tree_size(paths)[0]


def _tree_size(paths: Sequence[Tokens]) -> tuple[int, int]:
    """Tokens of the prefix tree of ``paths``, and how many come before each of them, in all."""
    # Any order that brings common beginnings together will do: each path stands behind the one it shares most with.
    ordered = sorted(paths, key=lambda path: path.tobytes())
    unique = before = 0
    last = np.empty(0, dtype=np.int32)
    for path in ordered:
        shared, n = common_prefix(last, path), len(path)
        unique += n - shared
        before += (n * (n - 1) - shared * (shared - 1)) // 2
        last = path
    return unique, before
