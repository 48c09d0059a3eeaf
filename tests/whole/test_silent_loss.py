"""llama.cpp loses windowed prefixes without a word; two ids on every held prefix, and a check before every branch.

The reproduction decodes 300 tokens of one sequence, a prefix of 200 after them, frees the former and decodes 420 more.
llama.cpp goes through the cells in order: it takes the 300 free ones, then those of the prefix that lie behind the
64-token window of the prefix's end, though hundreds of free ones follow. A branch from position 100 of the prefix then
misses what it should see.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from orin_runner.batching.batch import BatchBuilder, Copy
from orin_runner.engine.executor import Executor, LostPrefixError
from orin_runner.machine.devices import cpu_threads
from orin_runner.model.llama import Context, ContextSettings, Model
from tests.support.checkpoints import phi3

PREFIX, BRANCH = 200, 100
HOLDER, PIN, OTHER, NEW = range(4)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[Context]:
    """A random model with a window of 64 and sharp logits, in float32."""
    folder = tmp_path_factory.mktemp("window")
    source = phi3(folder / "hf", tiny, window=64, sharpness=2.5)
    convert(Checkpoint.open(source), folder / "model.gguf", Options("f32"))
    settings = ContextSettings(
        n_cells=1024, n_batch=512, n_ubatch=512, n_outputs=256, kv_type="f32", flash_attn=False, n_threads=cpu_threads()
    )
    with Model(folder / "model.gguf") as model, Context(model, settings) as context:
        yield context


def decode(context: Context, tokens: npt.NDArray[np.int32], start: int, *seqs: int) -> npt.NDArray[np.float64]:
    """Log-probabilities after the last of ``tokens``, without any of the decoder's checks."""
    builder = BatchBuilder()
    offset = builder.add(tokens, start, seqs[0])
    for seq in seqs[1:]:
        builder.share(offset, len(tokens), start, seq)
    builder.flag(np.array([len(tokens) - 1]))
    context.submit(builder.build())
    row = context.logits(1)[0].astype(np.float64)
    return np.asarray(row - np.log(np.exp(row - row.max()).sum()) - row.max())


def prefix_and_others(context: Context, *holders: int) -> None:
    """Put the prefix into the cache, held by ``holders``, and write into the cells around it."""
    context.clear()
    decode(context, tokens_of(2, 300), 0, OTHER)
    decode(context, tokens_of(1, PREFIX), 0, *holders)
    context.cut(OTHER, 0)
    decode(context, tokens_of(4, 420), 0, OTHER)


def tokens_of(seed: int, n: int) -> npt.NDArray[np.int32]:
    return np.random.default_rng(seed).integers(300, 2900, n).astype(np.int32)


def branch(context: Context, *holders: int) -> float:
    """How far a branch from the prefix is from the same tokens alone."""
    prefix, tail = tokens_of(1, PREFIX), tokens_of(3, 20)
    context.clear()
    alone = decode(context, np.concatenate([prefix[:BRANCH], tail]), 0, NEW)
    prefix_and_others(context, *holders)
    context.copy(HOLDER, NEW, BRANCH)
    return float(np.abs(decode(context, tail, BRANCH, NEW) - alone).max())


def test_a_prefix_with_one_id_is_lost_and_with_two_it_is_not(context: Context) -> None:
    """Why the planner pins: the first is llama.cpp's behaviour, the second what the planner relies on."""
    assert branch(context, HOLDER) > 0.5
    assert branch(context, HOLDER, PIN) < 1e-3


def test_the_decoder_notices_a_lost_prefix(context: Context) -> None:
    """llama_decode would return 0; ``prepare`` asks for the positions first."""
    prefix_and_others(context, HOLDER)
    builder = BatchBuilder()
    builder.copies.append(Copy(HOLDER, NEW, BRANCH))
    builder.add(tokens_of(3, 20), BRANCH, NEW)
    with pytest.raises(LostPrefixError):
        Executor(context).prepare(builder.build())
