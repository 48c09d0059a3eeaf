"""What share of attention is computed for nothing: a run's batches replayed without a model, their masks counted.

    python -m benchmarks.attention_mask --data DIR [--tasks mmlu,hellaswag,bbh_direct,bbh] [--limit N]
                                        [--shapes h100,orin,orin:1x1024x1024] [--orders as-is,kept-first]

The prompts of each task go through the engine's own prefill on a cache that places cells as llama.cpp does
(``llama_kv_cache::find_slot``, ``apply_ubatch``, ``get_n_kv``) and computes nothing. For each ubatch its mask is
counted as the CUDA kernel sees it. A pair is a query and a cell. Of texts only the prompts are replayed.

*Attended*: pairs that the mask leaves. *Today*: pairs of the tiles that llama.cpp computes. *Blocks*: those if each
tile whose pairs are all masked were left out. *Balance*: pairs of an average CUDA block by those of the longest, which
ends last; on GPUs where the blocks divide all tiles evenly before it is known which are masked. *Kept first*: a call's
tokens in another order, those that stay in the cache before the others, so that they get the lowest cells.

A shape is a device's name, for what is planned on it with Phi-3-medium's shape, and where another one is asked behind
it, contexts x tokens of a call x tokens of a ubatch. ``--limit`` takes rows evenly spread.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.asked import requests_of
from benchmarks.masked_cache import Mask, MaskedCache
from benchmarks.orin_projection import shape_of
from orin_runner.batching.batch import Batch
from orin_runner.batching.packer import Budget
from orin_runner.console import Notes, say
from orin_runner.engine.executor import Executor
from orin_runner.engine.logits import RowScorer
from orin_runner.engine.prefill import Prefill
from orin_runner.engine.wanted_tokens import WantedTokens
from orin_runner.errors import UserError
from orin_runner.machine.device_memory import DeviceMemory
from orin_runner.machine.devices import KNOWN
from orin_runner.machine.memory_formula import MIB
from orin_runner.machine.memory_plan import MemoryPlan, MemoryPlanner, budget_of, needs_of
from orin_runner.machine.shape import Shape
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.requests import Request, ScoreRequest

H100 = DeviceMemory("NVIDIA H100", 80_552 * MIB, unified=False, cuda=True, present=False, note="")
DEVICES = {"h100": H100, "orin": KNOWN["orin-32gb"]}
SIZES = re.compile(r"(\d+x\d+x\d+)?")
BLOCKS = {"h100": 264, "orin": None}
"""CUDA blocks of a launch: two on each of an H100's 132 SMs. An Orin's blocks take a tile of queries each."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """How llama.cpp's tensor-core kernel tiles a mask for heads of 128 values, four of which share keys.

    Attributes:
        queries: of a tile; with four heads each, 64 columns (``ggml_cuda_flash_attn_ext_mma_f16_switch_ncols1``).
        cells: of a tile (``nbatch_fa`` for head size 128 and 64 columns).
        step: cells by which a masked end is skipped (``FATTN_KQ_STRIDE``).
        scanned_from: queries of a ubatch from which on masks are scanned for such an end (``launch_fattn``).
        kv_heads: of a layer, that each have all tiles.
        blocks: CUDA blocks that divide the tiles of all heads evenly; None where each block has one row of tiles.
    """

    queries: int = 16
    cells: int = 64
    step: int = 256
    scanned_from: int = 1024
    kv_heads: int = 10
    blocks: int | None = None

    def today(self, mask: Mask) -> Mask:
        """The tiles that are computed, bool ``[rows of tiles, columns of tiles]``."""
        steps = self._tiles(mask, self.step)
        n = steps.shape[1]
        ends = n - steps[:, ::-1].argmax(axis=1) if len(mask) >= self.scanned_from else np.full(len(steps), n)
        computed: Mask = np.arange(n * self.step // self.cells) < (ends * (self.step // self.cells))[:, None]
        return computed

    def unmasked(self, mask: Mask) -> Mask:
        """The tiles that have a pair which is attended to."""
        return self._tiles(mask, self.cells)

    def longest(self, tiles: Mask) -> int:
        """Tiles of all heads that the busiest CUDA block computes, times the number of blocks."""
        if self.blocks is None:
            return self.kv_heads * int(np.count_nonzero(tiles))
        one = np.concatenate([[0], np.cumsum(tiles)])
        heads, rest = np.divmod(np.arange(self.blocks + 1) * tiles.size * self.kv_heads // self.blocks, tiles.size)
        return self.blocks * int(np.diff(heads * one[-1] + one[rest]).max())

    def _tiles(self, mask: Mask, cells: int) -> Mask:
        rows = -(-len(mask) // self.queries)
        padded = np.zeros((rows * self.queries, mask.shape[1]), dtype=bool)
        padded[: len(mask)] = mask
        found: Mask = np.logical_or.reduce(padded.reshape(rows, self.queries, -1, cells), axis=(1, 3))
        return found


@dataclass(slots=True)
class Pairs:
    """What the ubatches of a run have, of one head of keys.

    Attributes:
        calls, tokens: ubatches, and their queries.
        scanned: queries of ubatches whose masked end is skipped.
        cells: pairs of each query and all ``n_kv`` cells.
        attended, today, blocks: pairs, as the module's description has them.
        longest_today, longest_blocks: pairs if every CUDA block took as long as the longest.
    """

    calls: int = 0
    tokens: int = 0
    scanned: int = 0
    cells: int = 0
    attended: int = 0
    today: int = 0
    blocks: int = 0
    longest_today: int = 0
    longest_blocks: int = 0

    def count(self, kernel: Kernel, mask: Mask) -> None:
        """Add a ubatch."""
        tile = kernel.queries * kernel.cells
        today, unmasked = kernel.today(mask), kernel.unmasked(mask)
        self.calls += 1
        self.tokens += len(mask)
        self.scanned += len(mask) if len(mask) >= kernel.scanned_from else 0
        self.cells += mask.size
        self.attended += int(np.count_nonzero(mask))
        self.today += tile * int(np.count_nonzero(today))
        self.blocks += tile * int(np.count_nonzero(unmasked))
        self.longest_today += tile * kernel.longest(today) // kernel.kv_heads
        self.longest_blocks += tile * kernel.longest(unmasked) // kernel.kv_heads

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


def kept_first(batch: Batch) -> Batch:
    """``batch`` with the tokens that stay in the cache after it before the others.

    A sequence's tokens stay in order: what stays of it is its beginning.
    """
    cut = {each.seq for each in batch.cuts if each.start == 0}
    n_ids = np.diff(batch.seq_starts)
    goes = np.isin(batch.seq_ids, np.fromiter(cut, dtype=np.int32, count=len(cut)))
    stays = np.add.reduceat(~goes, batch.seq_starts[:-1]) > 0
    order = np.argsort(~stays, kind="stable")
    ids = [batch.seq_ids[batch.seq_starts[i] : batch.seq_starts[i + 1]] for i in order.tolist()]
    return replace(
        batch,
        tokens=batch.tokens[order],
        positions=batch.positions[order],
        seq_ids=np.concatenate(ids),
        seq_starts=np.concatenate([[0], np.cumsum(n_ids[order])]),
        outputs=batch.outputs[order],
    )


ORDERS: dict[str, Callable[[Batch], Batch]] = {"as-is": lambda batch: batch, "kept-first": kept_first}


class NoScorer(RowScorer):
    """Scores nothing: there are no logits."""

    def snapshot(self, rows: npt.NDArray[np.float32], _most_rows: int) -> npt.NDArray[np.float32]:
        return rows

    def submit(self, *_: Any) -> list[Future[None]]:
        return []

    def recycle(self, snapshot: npt.NDArray[np.float32]) -> None:
        pass


def prompts_only(requests: Iterable[Request]) -> list[ScoreRequest]:
    """Score requests as they are; of texts the prompt, with a token after it that is wanted."""
    one = np.zeros(1, dtype=np.int32)
    return [
        request if isinstance(request, ScoreRequest) else ScoreRequest(request.prompt, (one,)) for request in requests
    ]


def replay(
    requests: Sequence[ScoreRequest],
    budget: Budget,
    n_ubatch: int,
    n_contexts: int,
    on_mask: Callable[[Mask], None],
    window: int = 0,
    order: Callable[[Batch], Batch] = ORDERS["as-is"],
) -> None:
    """Hand the mask of each ubatch of the requests' prefill to ``on_mask``."""
    caches = [MaskedCache(budget.n_cells, budget.n_seq, n_ubatch, window, on_mask, order) for _ in range(n_contexts)]
    scorer = NoScorer(1)
    try:
        for _ in Prefill(WantedTokens(requests)).run(
            [Executor(cache) for cache in caches], budget, scorer, None, lambda: None
        ):
            pass
    finally:
        scorer.close()


def plan_for(file: GGUFFile, wanted: str, requests: Sequence[Request]) -> MemoryPlan:
    """What is planned on a device that is not here, ``wanted`` as ``--shapes`` names it.

    Raises:
        UserError: there is no such device or shape, it does not fit, or there is not work for so many contexts.
    """
    name, _, sizes = wanted.partition(":")
    if name not in DEVICES or not SIZES.fullmatch(sizes):
        raise UserError(f"{wanted} is no shape", f"{' or '.join(DEVICES)}, or one of them with sizes: orin:1x1024x1024")
    shape = Shape(*map(int, sizes.split("x"))) if sizes else None
    plan = MemoryPlanner(file, DEVICES[name], 8, tuned=shape).plan(needs_of(requests))
    if not plan.fits or (shape and plan.shape != shape):
        raise UserError(f"{wanted} is not what is planned for these rows: {plan.shape}", "more rows, or another shape")
    return plan


def measure(task: str, requests: Sequence[Request], file: GGUFFile, wanted: str, orders: Sequence[str]) -> None:
    """A row for each order.

    Raises:
        UserError: as ``plan_for``.
    """
    plan, name = plan_for(file, wanted, requests), wanted.partition(":")[0]
    settings, kernel = plan.settings, Kernel(blocks=BLOCKS[name])
    for order in orders:
        pairs, began = Pairs(), time.process_time()
        replay(
            prompts_only(requests),
            budget_of(settings),
            settings.n_ubatch,
            plan.n_contexts,
            partial(pairs.count, kernel),
            file.window or 0,
            ORDERS[order],
        )
        n = pairs.tokens
        shape = f"{plan.n_contexts} x {settings.n_batch:,} / {settings.n_ubatch:,}"
        numbers = (pairs.cells, pairs.today, pairs.blocks, pairs.attended)
        say(
            f"| {task} | {len(requests):,} | {name} | {shape} | {settings.n_cells:,} | {order} | {n:,} "
            f"| {pairs.calls:,} | {pairs.scanned / n:.1%} | {' | '.join(f'{each / n:,.0f}' for each in numbers)} "
            f"| {1 - pairs.blocks / pairs.today:.1%} | {pairs.today / pairs.longest_today:.2f} "
            f"| {pairs.blocks / pairs.longest_blocks:.2f} | {time.process_time() - began:.0f} |"
        )


def table(args: argparse.Namespace) -> None:
    """Everything.

    Raises:
        UserError: data, a shape or an order is not there.
    """
    orders = args.orders.split(",")
    if unknown := [order for order in orders if order not in ORDERS]:
        raise UserError(f"{unknown[0]} is no order", f"--orders {','.join(ORDERS)}")
    tokenizer = args.data and args.data / "tokenizers" / "phi-3-medium"
    if not tokenizer or not tokenizer.is_dir():
        raise UserError("there is no folder tokenizers/phi-3-medium", "--data names the folder with the published data")
    columns = (
        *("task", "rows", "device", "contexts x call / ubatch", "cells", "order", "tokens", "ubatches", "scanned"),
        *("n_kv", "today", "blocks", "attended", "saved", "balance today", "balance blocks", "CPU s"),
    )
    say(f"| {' | '.join(columns)} |")
    say(f"|{' --- |' * len(columns)}")
    file = shape_of(tokenizer)
    for task in args.tasks.split(","):
        requests = requests_of(task, file, args.data, args.limit)
        for wanted in args.shapes.split(","):
            measure(task, requests, file, wanted, orders)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    data = os.environ.get("ORIN_DATA")
    parser.add_argument("--data", type=Path, default=Path(data) if data else None, help="published files ($ORIN_DATA)")
    parser.add_argument("--tasks", default="mmlu,hellaswag,bbh_direct,bbh")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--shapes", default="h100,orin,orin:1x1024x1024", help=f"{'|'.join(DEVICES)}[:CxBxU],...")
    parser.add_argument("--orders", default="as-is,kept-first", help=",".join(ORDERS))
    args = parser.parse_args()
    try:
        table(args)
    except UserError as error:
        Notes().error(error.message, error.hint)
        sys.exit(2)


if __name__ == "__main__":
    main()
