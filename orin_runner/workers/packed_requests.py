"""Requests as a few large arrays, to pass to another process.

Pickling thousands of small arrays takes longer than the device needs for a batch of them, and it waits meanwhile: 1.3 s
for MMLU's 14,042 prompts, a tenth of it like this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orin_runner.requests import GenerateRequest, Request, ScoreRequest, Tokens


class _Bounds(NamedTuple):
    """What a generation request has beside its tokens."""

    stop: frozenset[int]
    max_new_tokens: int
    until: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PackedRequests:
    """Requests, their token arrays one after another.

    Attributes:
        tokens: int32, all token arrays: of each request the prompt and then its continuations or candidates.
        lengths: int64, of each of these arrays.
        counts: how many arrays each request has.
        beside: what each request has beside them; of a score request its ``scored``.
    """

    tokens: Tokens
    lengths: npt.NDArray[np.int64]
    counts: list[int]
    beside: list[tuple[int, ...] | _Bounds]


def pack(requests: Sequence[Request]) -> PackedRequests:
    """The same requests in a few arrays."""
    arrays: list[Tokens] = []
    counts: list[int] = []
    beside: list[tuple[int, ...] | _Bounds] = []
    for request in requests:
        if isinstance(request, ScoreRequest):
            paths = request.continuations
            beside.append(request.scored)
        else:
            paths = request.candidates
            beside.append(_Bounds(request.stop, request.max_new_tokens, request.until))
        arrays.append(request.prompt)
        arrays += paths
        counts.append(1 + len(paths))
    lengths = np.array([len(array) for array in arrays], dtype=np.int64)
    tokens = np.concatenate([np.empty(0, np.int32), *arrays], dtype=np.int32)
    return PackedRequests(tokens, lengths, counts, beside)


def unpack(packed: PackedRequests) -> list[Request]:
    """The requests that were packed; their arrays are parts of ``packed.tokens``."""
    ends = np.cumsum(packed.lengths)
    bounds = zip((ends - packed.lengths).tolist(), ends.tolist(), strict=True)
    arrays = (packed.tokens[start:end] for start, end in bounds)
    requests: list[Request] = []
    for count, beside in zip(packed.counts, packed.beside, strict=True):
        prompt, *paths = islice(arrays, count)
        if isinstance(beside, _Bounds):
            stop, max_new_tokens, until = beside
            requests.append(GenerateRequest(prompt, stop, max_new_tokens, tuple(paths), until))
        else:
            requests.append(ScoreRequest(prompt, tuple(paths), beside))
    return requests
