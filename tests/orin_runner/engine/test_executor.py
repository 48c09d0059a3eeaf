"""The canonical shape: many sequences after one another cost less than one at a time, and give the same bits."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from orin_runner.batching.batch import BatchBuilder
from orin_runner.engine.backend import Backend
from orin_runner.engine.device_clock import DeviceClock
from orin_runner.engine.executor import Executor, LostPrefixError
from orin_runner.machine.devices import cpu_threads
from orin_runner.model.llama import Context, ContextSettings, Model
from orin_runner.requests import Tokens
from orin_runner.runner import DecodeStats
from tests.support.fake_llama import FakeContext, reference
from tests.support.trees import random_paths


def both_ways(backend: Backend, paths: list[Tokens], n_chunk: int) -> tuple[int, int]:
    """Tokens computed for ``paths`` one at a time and after one another, whose rows must be equal."""
    executor, apart, together = Executor(backend, n_chunk), DecodeStats(), DecodeStats()
    executor.count_into(DeviceClock(DecodeStats()), apart)
    one_at_a_time = [row for path in paths for row in executor.canonical_rows([path])]
    executor.count_into(DeviceClock(DecodeStats()), together)
    rows = list(executor.canonical_rows(paths))
    assert [row.tobytes() for row in rows] == [row.tobytes() for row in one_at_a_time]
    return apart.tokens, together.tokens


@pytest.mark.parametrize("seed", range(20))
def test_the_fake_gives_the_rows_of_single_sequences(seed: int) -> None:
    """In any order, with a window or without, in a cache of exact fit."""
    rng = random.Random(seed)
    paths = random_paths(rng, 20, longest=60)
    if seed % 2:
        paths.sort(key=lambda path: path.tobytes())
    window = rng.choice([0, 12])
    backend = FakeContext(max(map(len, paths)), n_ubatch=4, n_outputs=1, window=window, jitter=0.3)
    apart, together = both_ways(backend, paths, 8)
    assert together <= apart
    assert backend.used() == 0
    exact = FakeContext(60, window=window)
    (row, *_) = Executor(exact, 8).canonical_rows(paths)
    assert np.array_equal(row, reference(paths[0].tolist(), 32, window))


def test_llama_cpp_gives_the_bits_of_single_sequences(tmp_path: Path, tiny: Path) -> None:
    """Beyond the window, and with chunks that end before, at and behind where the paths part."""
    model_path = tmp_path / "tiny.gguf"
    convert(Checkpoint.open(tiny), model_path, Options("auto", allow_rounding=False, window="exact"))
    rng = np.random.default_rng(1)
    stem = rng.integers(3, 900, 700).astype(np.int32)
    paths = [
        np.append(stem[:n], rng.integers(3, 900, extra).astype(np.int32))
        for n, extra in ((700, 1), (700, 90), (512, 300), (512, 1), (511, 30), (130, 5), (700, 90), (128, 0), (128, 0))
    ]
    settings = ContextSettings(n_cells=1024, n_batch=512, n_ubatch=256, n_outputs=8, n_seq=4, n_threads=cpu_threads())
    with Model(model_path) as model, Context(model, settings) as context:
        apart, together = both_ways(context, paths, 128)
    assert together < apart / 2


def test_time_between_calls_is_what_no_call_covers() -> None:
    """Calls of two contexts overlap; a call that began before the last one ended leaves nothing between."""
    stats = DecodeStats()
    clock = DeviceClock(stats)
    for start, submitted, end in (
        (1.0, 1.5, 3.0),
        (2.0, 2.5, 4.0),
        (4.5, 4.75, 6.0),
        (5.0, 5.25, 5.5),
        (5.75, 7.0, 8.0),
    ):
        clock.busy(start, submitted, end)
    assert stats.idle_s == pytest.approx(0.5)
    assert stats.alone_s == pytest.approx(0.5 + 0.25 + 1.0)


def test_the_end_of_a_batch_is_when_the_device_was_done_not_when_its_rows_were_read() -> None:
    """A batch that nobody waited for was done before: what follows counts as time with nothing on the device."""
    executor, stats = Executor(FakeContext(16), own_thread=True), DecodeStats()
    executor.count_into(DeviceClock(stats), DecodeStats())
    builder = BatchBuilder()
    builder.add(np.arange(4, dtype=np.int32), 0, 0)
    builder.flag(np.array([3]))
    executor.submit(builder.build())
    time.sleep(0.2)
    executor.rows(1)
    executor.backend.clear()
    executor.submit(builder.build())
    executor.rows(1)
    assert stats.idle_s > 0.1


def test_a_lost_prefix_is_noticed() -> None:
    """llama.cpp decodes a sequence whose prefix is gone with status 0; the executor must not."""
    context = FakeContext(64)
    executor = Executor(context)
    builder = BatchBuilder()
    builder.add(np.array([1, 2, 3], dtype=np.int32), 0, 0)
    executor.prepare(builder.build())
    executor.submit(builder.build())
    context.cut(0, 0)
    builder = BatchBuilder()
    builder.add(np.array([4], dtype=np.int32), 3, 0)
    with pytest.raises(LostPrefixError):
        executor.prepare(builder.build())
