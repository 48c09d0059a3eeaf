"""Replayed masks: llama.cpp's own on the tiny model, the cells of the stand-in that keeps its rules, counted tiles."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.attention_mask import Kernel, Pairs, kept_first, plan_for, prompts_only, replay
from benchmarks.cpu_time import Nodes, watched
from benchmarks.masked_cache import Mask, MaskedCache
from orin_runner.batching.batch import Batch, BatchBuilder, Cut
from orin_runner.batching.packer import Budget
from orin_runner.engine.executor import Executor
from orin_runner.engine.logits import RowScorer
from orin_runner.engine.prefill import Prefill
from orin_runner.engine.wanted_tokens import WantedTokens
from orin_runner.errors import UserError
from orin_runner.machine.shape import Shape
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import Context, ContextSettings, Model
from orin_runner.requests import GenerateRequest, ScoreRequest, Tokens
from tests.support.commands import refused
from tests.support.fake_llama import FakeContext
from tests.support.shapes import PHI3_MEDIUM, header_only
from tests.support.smollm2 import run_module
from tests.support.trees import random_paths

SMALL = Kernel(queries=2, cells=4, step=8, scanned_from=4, kv_heads=1)


def requests_of(paths: list[Tokens]) -> list[ScoreRequest]:
    return [ScoreRequest(path, (np.array([1], dtype=np.int32),)) for path in paths]


def mask_of(*rows: str) -> Mask:
    """A mask drawn with x where a query attends to a cell."""
    return np.array([[each == "x" for each in row] for row in rows])


@dataclass(slots=True)
class Both:
    """A replayed cache and the stand-in of llama.cpp's, which take the same calls and must agree."""

    replayed: MaskedCache
    fake: FakeContext
    n_masks: int = 0

    def __post_init__(self) -> None:
        self.n_vocab, self.n_swa = self.fake.n_vocab, self.fake.n_swa
        self.synchronize, self.span = self.fake.synchronize, self.fake.span

    n_vocab: int = 0
    n_swa: int = 0
    synchronize: object = None
    span: object = None

    def clear(self) -> None:
        self.replayed.clear()
        self.fake.clear()

    def copy(self, src: int, dst: int, end: int) -> None:
        self.replayed.copy(src, dst, end)
        self.fake.copy(src, dst, end)
        self.agree()

    def cut(self, seq: int, start: int) -> None:
        self.replayed.cut(seq, start)
        self.fake.cut(seq, start)
        self.agree()

    def submit(self, batch: Batch) -> None:
        self.replayed.submit(batch)
        self.fake.submit(batch)
        self.agree()
        for seq in np.unique(batch.seq_ids).tolist():
            assert self.replayed.span(seq) == self.fake.span(seq)

    def logits(self, n: int) -> npt.NDArray[np.float32]:
        return self.fake.logits(n)

    def agree(self) -> None:
        assert self.replayed.position.tolist() == self.fake.position.tolist()
        assert [set(np.flatnonzero(held).tolist()) for held in self.replayed.held.T] == self.fake.tags


@pytest.mark.parametrize("window", [0, 12])
@pytest.mark.parametrize("seed", range(4))
def test_cells_are_those_of_llama_cpp(seed: int, window: int) -> None:
    """The stand-in was written from llama-kv-cache.cpp by itself; cells behind a window are used again and purged."""
    paths = random_paths(random.Random(seed), 40)
    wanted = WantedTokens(requests_of(paths))
    budget = Budget(n_cells=96, n_batch=24, n_seq=16, n_outputs=16)
    fake = FakeContext(96, n_seq=16, n_batch=24, n_ubatch=16, n_outputs=16, window=window)
    both = Both(MaskedCache(96, 16, 16, window, lambda _: None), fake)
    scorer = RowScorer(1)
    results = list(Prefill(wanted).run([Executor(both)], budget, scorer, None, lambda: None))  # type: ignore[arg-type]
    scorer.close()
    assert len(results) == len(paths)
    assert both.fake.decodes > 10


@pytest.mark.parametrize("window", [0, 12])
@pytest.mark.parametrize("order", ["as-is", "kept-first"])
def test_a_query_attends_to_its_own_path_in_any_order(order: str, window: int) -> None:
    """Each unique token once, to every token before it and itself, or to those in the window."""
    paths = random_paths(random.Random(5), 60)
    seen: list[int] = []
    replay(
        requests_of(paths),
        Budget(n_cells=128, n_batch=32, n_seq=32, n_outputs=32),
        16,
        1,
        lambda mask: seen.extend(np.count_nonzero(mask, axis=1).tolist()),
        window,
        {"as-is": lambda batch: batch, "kept-first": kept_first}[order],
    )
    unique = {tuple(path[: i + 1].tolist()) for path in paths for i in range(len(path))}
    assert sorted(seen) == sorted(min(len(path), window or len(path)) for path in unique)


def test_masks_are_those_that_llama_cpp_computes_with(tiny_gguf: Path) -> None:
    """On the tiny model, whose window of 256 tokens is shorter than these paths, in two ubatches a call."""
    rng = np.random.default_rng(2)
    stem = rng.integers(10, 200, 400, dtype=np.int32)
    paths = [np.concatenate([stem[:n], rng.integers(10, 200, 90, dtype=np.int32)]) for n in (0, 90, 200, 300, 300, 400)]
    settings = ContextSettings(1024, 256, 128, 256)
    budget = Budget(settings.n_cells, settings.n_batch, settings.n_seq, settings.n_outputs)
    real: list[Mask] = []
    nodes = Nodes(on_mask=real.append)
    scorer = RowScorer(1)
    with Model(tiny_gguf) as model:
        with watched(nodes):
            context = Context(model, settings)
        with context:
            wanted = WantedTokens(requests_of(paths))
            list(Prefill(wanted).run([Executor(context)], budget, scorer, None, lambda: None))
            window = context.n_swa
    scorer.close()
    replayed: list[Mask] = []
    replay(requests_of(paths), budget, settings.n_ubatch, 1, replayed.append, window)
    assert window == 256
    assert len(replayed) > 5
    assert [mask.shape for mask in replayed] == [mask.shape for mask in real]
    assert all(map(np.array_equal, replayed, real))


def test_a_masked_end_is_left_out_in_steps_for_each_tile_of_queries() -> None:
    """Two tiles of two queries, cells in tiles of 4 and steps of 8: the first ends behind 8 cells, the second 16."""
    mask = mask_of(
        "x...x...................",
        "xx......................",
        "x........x..............",
        "x...............        ",
    )
    assert SMALL.today(mask).tolist() == [[True, True, False, False, False, False], [True] * 4 + [False] * 2]
    assert SMALL.unmasked(mask).tolist() == [
        [True, True, False, False, False, False],
        [True, False, True, False, False, False],
    ]


def test_below_so_many_queries_no_mask_is_scanned() -> None:
    mask = mask_of("x.......", "x.......", "x.......")
    assert SMALL.today(np.pad(mask, ((0, 0), (0, 8)))).all()
    assert SMALL.unmasked(mask).tolist() == [[True, False], [True, False]], "the last tile has one query only"


def test_the_longest_block_of_an_even_division() -> None:
    """Two heads of x x . . in three blocks of 2, 3 and 3 tiles: x x, . . x and x . . are 2, 1 and 1 tiles."""
    tiles = np.array([[True, True], [False, False]])
    assert Kernel(kv_heads=2, blocks=3).longest(tiles) == 3 * 2
    assert Kernel(kv_heads=2, blocks=2).longest(tiles) == 2 * 2, "a head each"
    assert Kernel(kv_heads=2, blocks=None).longest(tiles) == 4, "each row of tiles by itself: what is computed"


def test_pairs_are_summed() -> None:
    pairs = Pairs()
    mask = mask_of("x...x...........", "xx..............", "x........x......", "x...............")
    pairs.count(SMALL, mask)
    pairs.count(SMALL, mask[:2])
    assert (pairs.calls, pairs.tokens, pairs.scanned) == (2, 6, 4)
    assert pairs.cells == 4 * 16 + 2 * 16
    assert pairs.attended == 7 + 4
    assert pairs.today == 8 * (2 + 4) + 8 * 4
    assert pairs.blocks == 8 * (2 + 2) + 8 * 2


def test_tokens_that_stay_are_computed_first() -> None:
    """Sequence 0 goes, 1 stays; the token that both hold stays and is the first of both."""
    builder = BatchBuilder()
    shared = builder.add(np.array([5], dtype=np.int32), 0, 0)
    builder.add(np.array([6, 7], dtype=np.int32), 1, 0)
    builder.share(shared, 1, 0, 1)
    builder.add(np.array([8, 9], dtype=np.int32), 1, 1)
    builder.flag(np.array([2]))
    builder.cuts.append(Cut(0, 0))
    batch = kept_first(builder.build())
    assert batch.tokens.tolist() == [5, 8, 9, 6, 7]
    assert batch.positions.tolist() == [0, 1, 2, 1, 2]
    assert batch.seq_ids.tolist() == [0, 1, 1, 1, 0, 0]
    assert batch.seq_starts.tolist() == [0, 2, 3, 4, 5, 6]
    assert batch.outputs.tolist() == [0, 0, 0, 0, 1]


def test_of_texts_the_prompts_are_replayed() -> None:
    prompt = np.array([3, 4], dtype=np.int32)
    (found,) = prompts_only([GenerateRequest(prompt, frozenset(), 8)])
    assert found.prompt is prompt
    assert found.n_scored == (1,)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--orders", "any"), "any is no order"),
        (("--data", "nowhere"), "no folder tokenizers/phi-3-medium"),
    ],
)
def test_what_is_not_there_is_refused(words: tuple[str, str], message: str) -> None:
    refused(run_module("benchmarks.attention_mask", *words), message)


@pytest.mark.parametrize("wanted", ["h200", "orin:1x1024", "h100:2"])
def test_a_shape_that_is_none_is_refused(wanted: str, tiny_gguf: Path) -> None:
    with pytest.raises(UserError, match=f"{wanted} is no shape"):
        plan_for(GGUFFile.open(tiny_gguf), wanted, [])


def test_plans_are_those_of_the_devices(tmp_path: Path) -> None:
    """Two contexts on an H100, one on an Orin; another shape where it is asked, and work for it."""
    file = GGUFFile.open(header_only(tmp_path / "m.gguf", PHI3_MEDIUM))
    paths = [np.full(3000, n, dtype=np.int32) for n in (5, 6)]
    shapes = [plan_for(file, wanted, requests_of(paths)).shape for wanted in ("h100", "orin", "orin:1x1024x1024")]
    assert shapes == [Shape(2, 1024, 1024), Shape(1, 2048, 1024), Shape(1, 1024, 1024)]
    with pytest.raises(UserError, match="not what is planned"):
        plan_for(file, "h100:4x1024x1024", requests_of(paths[:1]))
