"""The canonical shape: many sequences after one another cost less than one at a time, and give the same bits."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest
from fake_llama import FakeContext, reference
from trees import random_paths

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from orin_runner.batching.batch import BatchBuilder
from orin_runner.engine.executor import Backend, Decoder, DecodeStats
from orin_runner.model.llama import Context, ContextSettings, Model
from orin_runner.requests import Tokens


def both_ways(backend: Backend, paths: list[Tokens], n_chunk: int) -> tuple[int, int]:
    """Tokens computed for ``paths`` one at a time and after one another, whose rows must be equal."""
    decoder = Decoder(backend)
    one_at_a_time = [decoder.alone(path, n_chunk) for path in paths]
    apart = decoder.checks.tokens
    together = list(decoder.each_alone(paths, n_chunk))
    assert [row.tobytes() for row in together] == [row.tobytes() for row in one_at_a_time]
    return apart, decoder.checks.tokens - apart


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
    (row, *_) = Decoder(exact).each_alone(paths, 8)
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
    settings = ContextSettings(n_cells=1024, n_batch=512, n_ubatch=256, n_outputs=8, n_seq=4, n_threads=2)
    with Model(model_path) as model, Context(model, settings) as context:
        apart, together = both_ways(context, paths, 128)
    assert together < apart / 2


def test_time_between_calls_is_what_no_call_covers() -> None:
    """Calls of two contexts overlap; a call that began before the last one ended leaves nothing between."""
    stats = DecodeStats()
    for start, submitted, end in (
        (1.0, 1.5, 3.0),
        (2.0, 2.5, 4.0),
        (4.5, 4.75, 6.0),
        (5.0, 5.25, 5.5),
        (5.75, 7.0, 8.0),
    ):
        stats.busy(start, submitted, end)
    assert stats.idle_s == pytest.approx(0.5)
    assert stats.alone_s == pytest.approx(0.5 + 0.25 + 1.0)
    assert stats.busy_until == 8.0


def test_the_end_of_a_batch_is_when_the_device_was_done_not_when_its_rows_were_read() -> None:
    """A batch that nobody waited for was done before: what follows counts as time with nothing on the device."""
    decoder = Decoder(FakeContext(16), watched=True)
    builder = BatchBuilder()
    builder.add(np.arange(4, dtype=np.int32), 0, 0)
    builder.flag(np.array([3]))
    decoder.submit(builder.build())
    submitted = time.perf_counter()
    time.sleep(0.2)
    decoder.rows(1)
    assert decoder.stats.busy_until is not None
    assert decoder.stats.busy_until < submitted + 0.1
