"""The token tree: shared prefixes are found, and every token has exactly one name."""

from __future__ import annotations

import random

import numpy as np
import pytest

from orin_runner.batching.tree import TokenTree
from orin_runner.requests import common_prefix
from tests.support.trees import distinct, random_paths


def test_unique_tokens_equal_a_plain_trie() -> None:
    """``n_unique`` is the number of nodes of the trie of all paths."""
    for seed in range(50):
        paths = random_paths(random.Random(seed), 20)
        assert TokenTree(paths).n_unique == distinct(paths)


def test_every_prefix_has_one_stream_index() -> None:
    """Two (path, position) pairs have the same stream index exactly when they end the same prefix."""
    for seed in range(50):
        tree = TokenTree(random_paths(random.Random(seed), 15))
        where = [(i, p) for i, path in enumerate(tree.paths) for p in range(len(path))]
        indices = tree.locate(np.array([i for i, _ in where]), np.array([p for _, p in where]))
        named: dict[int, tuple[int, ...]] = {}
        for (i, p), index in zip(where, indices.tolist(), strict=True):
            prefix = tuple(tree.paths[i][: p + 1].tolist())
            assert named.setdefault(index, prefix) == prefix
        assert sorted(named) == list(range(tree.n_unique))
        assert len(set(named.values())) == tree.n_unique


def test_a_part_is_the_tree_of_its_paths() -> None:
    """Paths, prefixes and counts are those of a tree built from them; tokens have the whole tree's names, shifted."""
    for seed in range(50):
        rng = random.Random(seed)
        tree = TokenTree(random_paths(rng, 20))
        first = rng.randrange(len(tree.paths))
        end = rng.randrange(first + 1, len(tree.paths) + 1)
        part, before = tree.subtree(first, end)
        built = TokenTree(tree.paths[first:end])
        assert [path.tolist() for path in part.paths] == [path.tolist() for path in built.paths]
        assert part.lcp.tolist() == built.lcp.tolist()
        assert part.starts.tolist() == built.starts.tolist()
        for path in range(first, end):
            own = np.arange(tree.lcp[path], len(tree.paths[path]))
            inside = np.full(len(own), path)
            assert (part.locate(inside - first, own) + before == tree.locate(inside, own)).all()


def test_the_middle_is_where_two_parts_cost_least() -> None:
    """Between two families of prompts rather than inside of one; nowhere if there is only one."""
    families = [[[family, 1, 2, 3, *tail] for tail in ([4], [5], [6, 6])] for family in range(4)]
    paths = [np.array(path, dtype=np.int32) for family in families for path in family]
    assert TokenTree(paths).cuts(2) == [6]
    assert TokenTree(paths[:6]).cuts(2) == [3]
    assert TokenTree(paths[:1]).cuts(2) == []
    assert TokenTree(paths).cuts(4) == [3, 6, 9]
    assert TokenTree(paths).cuts(1) == TokenTree([]).cuts(3) == []


def test_no_part_begins_where_it_would_compute_much_again() -> None:
    """A cut that costs too much gives way to one that does not; where there is no other the tree stays whole."""
    shared = list(range(400))
    paths = [[1, *shared, tail] for tail in range(4)] + [[2, *shared[:300]]]
    tree = TokenTree([np.array(path, dtype=np.int32) for path in paths])
    assert tree.cuts(2) == [4], "the equal cut lies within the first four, which share 401 tokens"
    assert TokenTree(tree.paths[:4]).cuts(2) == []


def test_all_further_parts_together_compute_little_again() -> None:
    """One cut within a hundred prompts that share 40 tokens costs less than a hundredth; of seven each would."""
    paths = [[*range(40), 100 + n, *range(60)] for n in range(100)]
    tree = TokenTree([np.array(path, dtype=np.int32) for path in paths])
    assert tree.lcp[1:].tolist() == [40] * 99
    assert tree.n_unique == 40 + 100 * 61
    assert tree.cuts(2) == [50]
    assert tree.cuts(8) == []


def test_paths_sort_by_token_id_not_by_byte() -> None:
    """Ids of 256 and more must not be compared by their low byte."""
    paths = [np.array(p, dtype=np.int32) for p in ([256], [1], [65536, 2], [255], [65536, 1])]
    assert [p.tolist() for p in TokenTree(paths).paths] == [[1], [255], [256], [65536, 1], [65536, 2]]


def test_duplicates_are_stored_once_and_prefixes_come_first() -> None:
    """The input's order is kept in ``index``."""
    paths = [np.array(p, dtype=np.int32) for p in ([1, 2, 3], [1, 2], [1, 2, 3])]
    tree = TokenTree(paths)
    assert [p.tolist() for p in tree.paths] == [[1, 2], [1, 2, 3]]
    assert tree.index.tolist() == [1, 0, 1]
    assert tree.n_unique == 3


def test_empty_paths_are_refused_and_no_paths_are_fine() -> None:
    """Nothing can be computed for an empty path; no path at all is an empty tree."""
    with pytest.raises(ValueError, match="empty"):
        TokenTree([np.array([], dtype=np.int32)])
    assert TokenTree([]).n_unique == 0


def test_common_prefix() -> None:
    """The count ends at the first difference or at the shorter path."""
    a = np.array([1, 2, 3], dtype=np.int32)
    assert common_prefix(a, np.array([1, 2, 4, 5], dtype=np.int32)) == 2
    assert common_prefix(a, a[:2]) == 2
    assert common_prefix(a, np.array([9], dtype=np.int32)) == 0
