"""Random token paths that share prefixes, for property tests."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import numpy as np

from orin_runner.requests import Tokens


def random_paths(rng: random.Random, n: int, longest: int = 60, vocabulary: int = 5) -> list[Tokens]:
    """``n`` paths of up to ``longest`` tokens, most of them branching off an earlier one."""
    paths: list[list[int]] = []
    for _ in range(n):
        start: list[int] = []
        if paths and rng.random() < 0.8:
            other = rng.choice(paths)
            start = other[: rng.randrange(len(other) + 1)]
        fresh = [rng.randrange(vocabulary) for _ in range(rng.randrange(1, longest // 2))]
        paths.append((start + fresh)[:longest])
    return [np.array(path, dtype=np.int32) for path in paths]


def distinct(paths: Iterable[Sequence[int] | Tokens]) -> int:
    """Nodes of the trie of ``paths``, counted by writing out every beginning."""
    return len({tuple(map(int, path[: i + 1])) for path in paths for i in range(len(path))})
