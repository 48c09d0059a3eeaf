"""What requests and their answers come to in tokens where nothing is shared, and how many of these are distinct.

The engine counts the same of its own tree (``orin_runner.runner.RunStats``: ``sent``, ``unique``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orin_runner.requests import Request, Result, Scored, ScoreRequest, Tokens, common_prefix


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
    # Any order that brings common beginnings together will do: each path stands behind the one it shares most with.
    ordered = sorted(paths, key=lambda path: path.tobytes())
    before = [np.empty(0, dtype=np.int32), *ordered[:-1]]
    return sum(len(path) - common_prefix(last, path) for last, path in zip(before, ordered, strict=False))
