"""The prompt cache changes what is computed, never what comes out; a bad file costs time, not answers."""

from __future__ import annotations

import os
import random
import resource
from pathlib import Path

import numpy as np
import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from orin_runner.batching import tree, wanted_rows
from orin_runner.batching.packer import Budget
from orin_runner.engine.engine import Engine
from orin_runner.engine.executor import LostPrefixError
from orin_runner.engine.prompt_cache import PromptCache, PromptCacheOptions
from orin_runner.requests import Generated, GenerateRequest, Request, Result, ScoreRequest
from orin_runner.runner import RunStats
from tests.support.checkpoints import phi3
from tests.support.fake_llama import FakeContext
from tests.support.runs import run_gguf

BUDGET = Budget(96, 16, 12, 8)


@pytest.fixture(autouse=True)
def _short_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wanted_rows, "MIN_BASE", 4)


def requests_of(rng: random.Random) -> list[Request]:
    """Groups with shared prefixes of 2 to 30 tokens, branches inside them, and choices of several tokens."""
    found: list[Request] = []
    for _ in range(rng.randrange(1, 6)):
        prefix = [rng.randrange(20) for _ in range(rng.randrange(2, 30))]
        for _ in range(rng.randrange(1, 6)):
            cut = rng.choice((len(prefix), len(prefix), rng.randrange(1, len(prefix))))
            prompt = np.array(prefix[:cut] + [rng.randrange(20) for _ in range(rng.randrange(0, 8))], dtype=np.int32)
            choices = tuple(
                np.array([rng.randrange(20) for _ in range(rng.randrange(1, 6))], dtype=np.int32) for _ in range(3)
            )
            found.append(ScoreRequest(prompt, choices))
    return found


def run(
    requests: list[Request],
    cache: PromptCache | None,
    window: int = 0,
    n_contexts: int = 1,
    budget: Budget = BUDGET,
) -> tuple[list[Result], RunStats]:
    sizes = {"n_seq": budget.n_seq, "n_batch": 16, "n_ubatch": 8, "n_outputs": 8, "window": window}
    contexts = [FakeContext(budget.n_cells, **sizes) for _ in range(n_contexts)]
    engine = Engine(contexts, budget, n_chunk=4, n_positions=64, cache=cache)
    found = dict(engine.run(requests))
    return [found[i] for i in range(len(requests))], engine.stats


def cache_in(folder: Path, identity: str = "model", max_bytes: int = 1 << 20) -> PromptCache:
    return PromptCache(PromptCacheOptions(folder, max_bytes, identity))


def same(a: list[Result], b: list[Result]) -> bool:
    return all(
        np.allclose(np.concatenate(x.logprobs), np.concatenate(y.logprobs), atol=1e-5)  # type: ignore[union-attr]
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("window", [0, 12])
@pytest.mark.parametrize("seed", range(12))
def test_same_answers_with_less_to_compute(tmp_path: Path, seed: int, window: int) -> None:
    """First run saves, second restores, and what is restored is not computed."""
    requests = requests_of(random.Random(seed))
    without, stats = run(requests, None, window)
    first_cache, second_cache = cache_in(tmp_path), cache_in(tmp_path)
    first, first_stats = run(requests, first_cache, window)
    second, second_stats = run(requests, second_cache, window)
    assert same(without, first)
    assert same(without, second)
    assert first_stats.computed == stats.unique
    assert bool(second_stats.restored) == bool(first_cache.saved_states)
    assert bool(first_stats.cacheable) == bool(second_stats.cacheable) == bool(first_cache.saved_states)
    assert stats.cacheable == 0
    # Prefixes of fewer than MIN_BASE that two bases share are in both states.
    assert stats.unique - second_stats.restored <= second_stats.computed < stats.unique + (not second_stats.restored)


@pytest.mark.parametrize("window", [0, 12])
@pytest.mark.parametrize("seed", range(12))
def test_two_contexts_share_the_states(tmp_path: Path, seed: int, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one context saved two restore, each for its half of the tree, and the other way round."""
    monkeypatch.setattr(tree, "MOST_AGAIN", 1.0)
    requests = requests_of(random.Random(seed))
    expected, _ = run(requests, None, window)
    for first, second in ((1, 2), (2, 1)):
        folder = tmp_path / str(first)
        cache = cache_in(folder)
        assert same(expected, run(requests, cache, window, first)[0])
        found, stats = run(requests, cache_in(folder), window, second)
        assert same(expected, found)
        assert bool(stats.restored) == bool(cache.saved_states)


@pytest.mark.parametrize("n_contexts", [1, 2])
@pytest.mark.parametrize("window", [0, 12])
@pytest.mark.parametrize("seed", range(12))
def test_prompts_of_texts_are_restored_too(
    tmp_path: Path, seed: int, window: int, n_contexts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With candidates and without, while other texts are being decoded in what is left of the cache."""
    monkeypatch.setattr(tree, "MOST_AGAIN", 1.0)
    rng = random.Random(seed)
    scores = [request for request in requests_of(rng) if isinstance(request, ScoreRequest)]
    requests: list[Request] = [
        GenerateRequest(request.prompt, frozenset({3}), 8, rng.choice([(), request.continuations]))
        for request in scores
    ]
    expected, without = run(requests, None, window)
    caches = [cache_in(tmp_path) for _ in range(3)]
    # What the first saves the second restores, and the third where there is room for it beside the texts.
    for cache, budget in zip(caches, (BUDGET, BUDGET, Budget(48, 16, 8, 8)), strict=True):
        found, stats = run(requests, cache, window, n_contexts, budget)
        for a, b in zip(expected, found, strict=True):
            assert isinstance(a, Generated)
            assert isinstance(b, Generated)
            assert a.tokens.tolist() == b.tokens.tolist()
        assert stats.unique == without.unique
        if cache is caches[1]:
            assert bool(stats.restored) == bool(caches[0].saved_states)


def saved(folder: Path) -> tuple[list[Request], list[Result]]:
    requests = requests_of(random.Random(1))
    results, _ = run(requests, cache_in(folder))
    assert list(folder.glob("*.state"))
    return requests, results


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "empty", "not JSON"])
def test_a_bad_file_is_removed_and_computed_again(tmp_path: Path, damage: str) -> None:
    """Torn writes, flipped bits and files of another name are refused, and replaced."""
    requests, expected = saved(tmp_path)
    files = sorted(tmp_path.glob("*.state"))
    content = files[0].read_bytes()
    if damage == "foreign":
        for file in files[1:]:
            file.unlink()
        files[0].rename(tmp_path / ("0" * 64 + ".state"))
        other = PromptCache(PromptCacheOptions(tmp_path, 1 << 20, "model"))
        path, _ = other._path(requests[0].prompt)
        path.write_bytes(content)
        assert other.load(requests[0].prompt) is None
        assert not path.exists()
    else:
        for file in files:
            whole = file.read_bytes()
            flipped = whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]
            parts = {"truncated": whole[:-1], "flipped": flipped, "empty": b"", "not JSON": b"\xff\n" + whole}
            file.write_bytes(parts[damage])
        cache = cache_in(tmp_path)
        results, stats = run(requests, cache)
        assert same(results, expected)
        assert stats.restored == 0
        assert cache.refused_files == len(files) == cache.saved_states


def test_another_models_states_are_not_used(tmp_path: Path) -> None:
    """The identity is part of the key."""
    requests, expected = saved(tmp_path)
    results, stats = run(requests, cache_in(tmp_path, "another model"))
    assert stats.restored == 0
    assert same(results, expected)


def test_the_folder_is_bounded_and_the_oldest_go_first(tmp_path: Path) -> None:
    """What was used last stays."""
    cache = cache_in(tmp_path, max_bytes=1000)
    prompts = [np.array([i, i + 1], dtype=np.int32) for i in range(6)]
    for i, prompt in enumerate(prompts[:3]):
        cache.save(prompt, bytes(200))
        path, _ = cache._path(prompt)
        os.utime(path, (i, i))
    assert cache.load(prompts[0]) is not None  # used now: no longer the oldest
    cache.save(prompts[3], bytes(200))
    assert [cache.load(prompt) is not None for prompt in prompts[:4]] == [True, False, True, True]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1200


def test_what_is_larger_than_the_folder_may_be_is_said_once(tmp_path: Path) -> None:
    notes: list[str] = []
    cache = PromptCache(PromptCacheOptions(tmp_path, 1000, "model"), notes.append)
    for i in range(2):
        cache.save(np.array([i, i + 1], dtype=np.int32), bytes(2345))
    assert notes == [
        "a shared prefix of 2,345 bytes is not kept: it is larger than the 1,000 bytes that the prompt cache may have"
    ]
    assert (cache.saved_states, list(tmp_path.iterdir())) == (0, [])


def test_a_full_disk_costs_the_cache_not_the_run(tmp_path: Path) -> None:
    """Writing fails: one note, nothing half-written, right answers."""
    requests = requests_of(random.Random(1))
    expected, _ = run(requests, None)
    notes: list[str] = []
    cache = PromptCache(PromptCacheOptions(tmp_path / "cache", 1 << 20, "model"), notes.append)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        results, _ = run(requests, cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same(results, expected)
    assert len(notes) == 1
    assert "takes no more states" in notes[0]
    assert list((tmp_path / "cache").iterdir()) == []


def test_on_llama_cpp(tmp_path: Path, tiny: Path) -> None:
    """Real states of a real windowed cache, restored in another context, and in two that share the work."""
    source = phi3(tmp_path / "hf", tiny, window=512, sharpness=2.5)
    convert(Checkpoint.open(source), tmp_path / "model.gguf", Options("f32"))
    rng = np.random.default_rng(1)
    requests: list[Request] = []
    for length in (300, 310, 700):
        prefix = rng.integers(300, 2900, length)
        for _ in range(4):
            prompt = np.concatenate([prefix, rng.integers(300, 2900, 20)]).astype(np.int32)
            requests.append(ScoreRequest(prompt, tuple(rng.integers(300, 2900, (8, 1)).astype(np.int32))))
    expected, _ = run_gguf(tmp_path / "model.gguf", requests, exact=True)
    every = 300 + 310 + 511  # the longest prefix is kept as far as the window reaches
    for restored, n_contexts in ((0, 1), (every, 1), (every, 2)):
        cache = cache_in(tmp_path, max_bytes=1 << 30)
        found, stats = run_gguf(tmp_path / "model.gguf", requests, exact=True, cache=cache, n_contexts=n_contexts)
        assert stats.restored == restored
        assert stats.computed == stats.unique - restored
        for a, b in zip(expected, found, strict=True):
            assert np.abs(np.concatenate(a.logprobs) - np.concatenate(b.logprobs)).max() < 1e-3  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["a file", "below a file", "a link to itself", "a folder that takes none", "a pipe"])
def test_a_folder_that_cannot_be_used_costs_the_cache_not_the_run(tmp_path: Path, kind: str) -> None:
    """One note that names it, right answers, and what stands there stays."""
    folder = tmp_path / "cache"
    if kind in {"a file", "below a file"}:
        folder.write_text("mine")
        folder = folder / "below" if kind == "below a file" else folder
    elif kind == "a link to itself":
        folder.symlink_to(folder)
    elif kind == "a pipe":
        os.mkfifo(folder)
    else:
        folder = Path("/proc/self/fdinfo")  # writable by its mode, also for root, and takes no file
    requests = requests_of(random.Random(1))
    expected, _ = run(requests, None)
    notes: list[str] = []
    results, stats = run(requests, PromptCache(PromptCacheOptions(folder, 1 << 20, "model"), notes.append))
    assert same(results, expected)
    assert stats.restored == 0
    assert len(notes) == 1
    assert f"the prompt cache in {folder} takes no more states, the run goes on" in notes[0]
    if kind == "a file":
        assert folder.read_text() == "mine"


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a link to itself", "nested too deep", "longer than it says"])
def test_a_state_that_is_none(tmp_path: Path, kind: str) -> None:
    """Whatever stands under a state's name: computed again."""
    requests, expected = saved(tmp_path)
    for path in list(tmp_path.glob("*.state")):
        whole = path.read_bytes()
        path.unlink()
        if kind == "a folder":
            path.mkdir()
        elif kind == "a pipe":
            os.mkfifo(path)
        elif kind == "a link to itself":
            path.symlink_to(path)
        else:
            path.write_bytes(b"[" * 4000 + b"\n" if kind == "nested too deep" else whole + b"\0")
    results, stats = run(requests, cache_in(tmp_path))
    assert same(results, expected)
    assert stats.restored == 0


def test_states_in_a_folder_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are restored, and nothing can be noted of that; root may write everywhere, so the system is asked for it."""
    requests, expected = saved(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(os, "access", lambda *_: False)
    notes: list[str] = []
    cache = PromptCache(PromptCacheOptions(tmp_path, 1 << 20, "model"), notes.append)
    results, stats = run(requests, cache)
    assert same(results, expected)
    assert stats.restored > 0
    assert notes == [
        f"the prompt cache in {tmp_path} takes no more states, the run goes on: {tmp_path}: it cannot be written"
    ]


def test_a_state_that_llama_cpp_does_not_take_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run that finds it ends, since its bookkeeping has it; the next one does not find it."""
    requests, expected = saved(tmp_path)
    files = list(tmp_path.glob("*.state"))
    cache = cache_in(tmp_path)
    with monkeypatch.context() as refusing:
        refusing.setattr(FakeContext, "set_state", lambda *_: False)
        with pytest.raises(LostPrefixError, match="did not take a state"):
            run(requests, cache)
    assert cache.refused_files == 1
    assert len(list(tmp_path.glob("*.state"))) == len(files) - 1
    assert same(run(requests, cache_in(tmp_path))[0], expected)
