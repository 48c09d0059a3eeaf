"""The memory plan: what a run will take, before anything is loaded, and the settings that fit.

Everything a run allocates is one of a plan's terms:

* weights: the GGUF's tensor table. The token embedding stays on the host; where it is the output head as well, the
  device has a copy.
* KV cache, compute, host compute: a context's cache and buffers. llama.cpp builds model and context with ``no_alloc``
  and logs what it would have allocated. It needs the backend that will compute; for a device that is not there a
  formula stands in, and the plan says which terms are assumed.
* outputs: rows of logits on the host.
* CUDA: what the driver, cuBLAS and the pool take beside llama.cpp's buffers.
* program: this program, its tokens, and copies of output rows while they are scored.

A further context takes its cache, buffers, rows and pool once more, and cuBLAS's workspace. Where the layers are
divided over several GPUs (``layer_split``), each has its part of weights and cache, and buffers, pool and CUDA of its
own: the plan has a column for each, and all must fit. The sizes themselves are
``memory_formula``'s. This module knows no machine: ``devices`` says what is here.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from orin_runner.batching.packer import Budget
from orin_runner.batching.tree import TokenTree
from orin_runner.machine.device_memory import DeviceMemory
from orin_runner.machine.layer_split import ModelBytes, split_of
from orin_runner.machine.memory_formula import FORMULA, MIB, context_bytes, cuda_bytes, output_bytes, program_bytes
from orin_runner.machine.shape import MOST_CONTEXTS, Shape
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import LLAMA_MAX_SEQ, ContextSettings, Simulated
from orin_runner.requests import GenerateRequest, Request, ScoreRequest, context_tokens

CELL_STEP = 256
"""llama.cpp rounds the cells its attention looks at up to this."""
UBATCHES = {True: (1024, 512, 256), False: (512, 256)}
"""Ubatch sizes by preference, on a GPU and on a CPU. From 1,024 tokens llama.cpp's CUDA attention skips the unused end
of the cache (``flash_attn_mask_to_KV_max``); below n_seq the compute buffers shrink no further (``sched_reserve``)."""
BATCHES = {True: (2048, 1024, 512, 256), False: (512, 256)}
"""Tokens of a decode call by preference, on a GPU and on a CPU. A CPU computes attention over the cells of all that the
call has, and over those of the texts that go on beside it: with one ubatch a call the cells are free again before the
next (``benchmarks/RESULTS.md``)."""
SCORE_CONTEXTS, TEXT_CONTEXTS, TURN_BATCH = 2, 3, 1024
"""Contexts that take turns on one GPU where choices are scored and where texts are decoded, and tokens of their decode
calls: one ubatch, so that a submission never waits for the first half of its own batch."""
STAGE_CONTEXTS, STAGE_BATCH = 2, 512
"""Contexts for each GPU that layers are divided over, and tokens of their decode calls: while one GPU computes for one
context, the others compute for others."""
DECODE_CELLS = 8192
"""Cells for texts being decoded side by side, where memory allows."""
GPU_HOST_THREADS = 2
"""llama.cpp's CPU threads beside a GPU: it only looks embeddings up, and more would stand in the way of scoring."""

Simulate = Callable[[ContextSettings], Simulated]
"""llama.cpp's own sizes for settings; see ``orin_runner.model.llama.simulate``."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the requests ask of a context.

    Attributes:
        longest: tokens of the longest path, generated tokens included.
        row_share: output rows per computed token, at most 1.
        generated: whether texts may have to be decoded, many at once.
        tokens: tokens of all requests, which the host holds.
        n_parts: contexts that can share the tree, at most ``MOST_CONTEXTS``.
    """

    longest: int
    row_share: float = 0.0
    generated: bool = False
    tokens: int = 0
    n_parts: int = 1


def needs_of(requests: Sequence[Request]) -> Needs:
    """What all of ``requests`` together ask of a context."""
    rows = fresh = tokens = 0
    for request in requests:
        # A prompt's last row serves all its choices; a continuation's last token is not computed. Of candidates one is
        # verified, after each of whose tokens a row is wanted.
        if isinstance(request, ScoreRequest):
            paths = request.continuations
            rows += 1 + sum(n - 1 for n in request.n_scored)
        else:
            paths = tuple(sorted(request.candidates, key=len)[-1:])
            rows += 1 + sum(map(len, paths))
        fresh += sum(len(path) - isinstance(request, ScoreRequest) for path in paths)
        tokens += len(request.prompt) + sum(len(path) for path in paths)
    tree = TokenTree([request.prompt for request in requests if len(request.prompt)])
    return Needs(
        longest=max((context_tokens(request) for request in requests), default=1),
        row_share=rows / max(fresh + tree.n_unique, 1),
        generated=any(isinstance(request, GenerateRequest) for request in requests),
        tokens=tokens,
        n_parts=max(1 + len(tree.cuts(n)) for n in range(1, MOST_CONTEXTS + 1)),
    )


@dataclass(frozen=True, slots=True)
class Column:
    """What a plan takes of one of several GPUs.

    Attributes:
        name, available: those of the GPU.
        layers: how many are on it.
        terms: bytes by name.
    """

    name: str
    available: int
    layers: int
    terms: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes taken."""
        return sum(self.terms.values())

    @property
    def remaining(self) -> int:
        """Bytes left; negative where it does not fit."""
        return self.available - self.total


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Sizes in bytes, and the settings they are for.

    Attributes:
        device: what the plan is made for.
        settings: a context's sizes.
        n_contexts: contexts of these sizes, which take turns.
        terms: bytes by name, in the order they are shown.
        on_device: names of the terms that lie in device memory.
        assumed: names of the terms that are neither simulated nor read from the file.
        longest: tokens of the longest request.
        fits: whether everything fits.
        advice: where it does not, the smallest change that makes it fit.
        formula: what stands in for llama.cpp's simulation, None where it was simulated.
        columns: the device's part of ``terms`` by GPU, where there are several.
        tuned: the settings are those of the shape that was measured to be the fastest (``MemoryPlanner.tuned``).
    """

    device: DeviceMemory
    settings: ContextSettings
    n_contexts: int
    terms: dict[str, int]
    on_device: tuple[str, ...]
    assumed: tuple[str, ...]
    longest: int
    fits: bool
    advice: str | None = None
    formula: str | None = None
    columns: tuple[Column, ...] = ()
    tuned: bool = False

    @property
    def shape(self) -> Shape:
        """How the decode calls are cut."""
        return Shape(self.n_contexts, self.settings.n_batch, self.settings.n_ubatch)

    @property
    def elastic(self) -> int:
        """Bytes that smaller settings would save."""
        return sum(self.terms.get(name, 0) for name in ("KV cache", "compute", "host compute", "outputs"))

    @property
    def total(self) -> int:
        """Bytes taken from ``device.available``: everything where memory is unified, else the device's terms."""
        return sum(size for name, size in self.terms.items() if self.device.unified or name in self.on_device)

    @property
    def remaining(self) -> int:
        """Bytes left, of several GPUs on the fullest; negative where it does not fit."""
        if self.columns:
            return min(column.remaining for column in self.columns)
        return self.device.available - self.total

    def to_json(self) -> dict[str, Any]:
        """For ``plan --json`` and ``run.json``."""
        return {
            "device": asdict(self.device),
            "settings": asdict(self.settings),
            "n_contexts": self.n_contexts,
            "terms": self.terms,
            "on_device": list(self.on_device),
            "assumed": list(self.assumed),
            "longest": self.longest,
            "total": self.total,
            "remaining": self.remaining,
            "fits": self.fits,
            "advice": self.advice,
            "formula": self.formula,
            "tuned": self.tuned,
            "columns": [
                {**asdict(column), "total": column.total, "remaining": column.remaining} for column in self.columns
            ],
        }


def budget_of(settings: ContextSettings) -> Budget:
    """What a decode call may use in a context of these ``settings``."""
    return Budget(settings.n_cells, settings.n_batch, settings.n_seq, settings.n_outputs)


def context_settings(needs: Needs, n_batch: int, n_ubatch: int, cells: int, n_threads: int) -> ContextSettings:
    """A context with at least so many ``cells``, and output rows for what is asked."""
    # A quarter more rows than average, so that dense stretches of the tree do not cut batches short.
    rows = min(n_batch, max(LLAMA_MAX_SEQ, math.ceil(1.25 * needs.row_share * n_batch)))
    return ContextSettings(_in_steps(cells), n_batch, n_ubatch, rows, n_threads=n_threads)


@dataclass(frozen=True, slots=True)
class MemoryPlanner:
    """Searches the settings that fit.

    Attributes:
        file: the model.
        device: where it is to run.
        n_threads: CPU threads.
        simulate: llama.cpp's own sizes, where the device is present; else the formula stands in.
        share: share of the best plan's cache and buffers to make do with, after that plan has failed.
        tuned: the shape that was measured to be the fastest; it comes first where it fits.
    """

    file: GGUFFile
    device: DeviceMemory
    n_threads: int
    simulate: Simulate | None = None
    share: float = 1.0
    tuned: Shape | None = None

    def plan(self, needs: Needs) -> MemoryPlan:
        """The first of the preferred settings that fits, or the smallest with ``fits`` False and advice.

        Raises:
            UserError: llama.cpp cannot load the file that it is to simulate.
        """
        plans: list[MemoryPlan] = []
        best: MemoryPlan | None = None
        measured = [] if self.tuned is None else list(self.shaped(needs, self.tuned))
        for k, (settings, n_contexts) in enumerate([*measured, *self.candidates(needs)]):
            plan = replace(self.sized(needs, settings, n_contexts), tuned=k < len(measured))
            if plan.fits:
                best = best or plan
                if plan.elastic <= self.share * best.elastic:
                    return plan
            plans.append(plan)
        smallest = min(plans, key=lambda plan: plan.total)
        return smallest if smallest.fits else replace(smallest, advice=self._advice(smallest))

    def plan_that_fits(self, needs: Needs, lengths: Sequence[int]) -> tuple[MemoryPlan, int]:
        """A plan for as many of the requests as memory allows.

        Args:
            needs: what all requests ask.
            lengths: context tokens of each request.

        Returns:
            (the plan, the longest request it is for); the length is 0 where nothing fits, and the plan then says why.

        Raises:
            UserError: llama.cpp cannot load the file that it is to simulate.
        """
        whole = self.plan(needs)
        if whole.fits:
            return whole, needs.longest
        shorter = sorted({length for length in lengths if length < needs.longest})
        plans: dict[int, MemoryPlan] = {}

        def too_long(length: int) -> bool:
            plans[length] = self.plan(replace(needs, longest=length))
            return not plans[length].fits

        fitting = shorter[: bisect_left(shorter, True, key=too_long)]
        return (plans[fitting[-1]], fitting[-1]) if fitting else (whole, 0)

    def candidates(self, needs: Needs) -> Iterator[tuple[ContextSettings, int]]:
        """A context's sizes and the number of contexts, the fastest first."""
        cuda, n_gpus = self.device.cuda, len(self.device.gpus)
        # While a GPU computes for one context, llama.cpp prepares the other's next batch, 13 ms on an H100's host. A
        # Jetson takes seconds for a batch: there the memory is worth more. A CPU computes within the call.
        in_turn = [(min(STAGE_CONTEXTS * n_gpus, MOST_CONTEXTS), STAGE_BATCH)] * (n_gpus > 1)
        in_turn += [(n, TURN_BATCH) for n in ((TEXT_CONTEXTS,) * needs.generated + (SCORE_CONTEXTS,))]
        several = [
            (min(n, needs.n_parts), n_batch, n_batch)
            for n, n_batch in in_turn
            if cuda and not self.device.unified and needs.n_parts > 1 and needs.tokens > n * n_batch
        ]
        single = [
            (1, n_batch, n_ubatch) for n_batch in BATCHES[cuda] for n_ubatch in UBATCHES[cuda] if n_ubatch <= n_batch
        ]
        for n_contexts, n_batch, n_ubatch in several + single:
            # Beside the longest path a full batch; for decoding, room for many sequences at first.
            roomy = needs.generated and (n_contexts > 1 or n_batch == BATCHES[cuda][0])
            for beside in (DECODE_CELLS, 0) if roomy else (0,):
                yield self._settings(needs, n_batch, n_ubatch, beside), n_contexts

    def shaped(self, needs: Needs, shape: Shape) -> Iterator[tuple[ContextSettings, int]]:
        """As ``candidates``, those of one shape; none where there is not work for several contexts that it has."""
        n_contexts = min(shape.n_contexts, needs.n_parts)
        if shape.n_contexts > 1 and (n_contexts == 1 or needs.tokens <= n_contexts * shape.n_batch):
            return
        for beside in (DECODE_CELLS, 0) if needs.generated else (0,):
            yield self._settings(needs, shape.n_batch, shape.n_ubatch, beside), n_contexts

    def _settings(self, needs: Needs, n_batch: int, n_ubatch: int, beside: int) -> ContextSettings:
        """With cells for the longest path, a batch, and so many ``beside`` them."""
        cells = min(needs.longest, self.file.n_ctx_train) + n_batch + beside
        threads = min(self.n_threads, GPU_HOST_THREADS) if self.device.cuda else self.n_threads
        return context_settings(needs, n_batch, n_ubatch, cells, threads)

    def sized(self, needs: Needs, settings: ContextSettings, n_contexts: int = 1) -> MemoryPlan:
        """The plan with these ``settings``, whether it fits or not."""
        file, cuda = self.file, self.device.cuda
        context = self.simulate(settings) if self.simulate else context_bytes(file, settings)
        columns = self._columns(settings, n_contexts, context) if self.device.gpus else ()
        if columns:
            terms = {name: sum(column.terms[name] for column in columns) for name in columns[0].terms}
        else:
            terms = {
                "weights": file.data_bytes - (file.embedding_bytes if cuda and not file.tied else 0),
                "KV cache": n_contexts * context.kv,
                "compute": n_contexts * (context.compute_device + (0 if cuda else context.compute_host)),
            }
            if cuda:
                terms["CUDA"] = cuda_bytes(file, settings, n_contexts)
        on_device = tuple(terms) if cuda or self.device.unified else ()
        if cuda:
            terms["embedding"] = file.embedding_bytes
            terms["host compute"] = n_contexts * context.compute_host
        terms["outputs"] = n_contexts * output_bytes(file, settings)
        terms["program"] = program_bytes(file, settings, needs.tokens)
        assumed = ("CUDA", "program") if self.simulate else ("compute", "CUDA", "host compute", "program")
        plan = MemoryPlan(
            device=self.device,
            settings=settings,
            n_contexts=n_contexts,
            terms=terms,
            on_device=on_device,
            assumed=tuple(name for name in assumed if name in terms),
            longest=needs.longest,
            fits=True,
            formula=None if self.simulate else FORMULA,
            columns=columns,
        )
        return replace(plan, fits=plan.remaining >= 0)

    def _columns(self, settings: ContextSettings, n_contexts: int, context: Simulated) -> tuple[Column, ...]:
        """What each of several GPUs takes."""
        gpus = self.device.gpus
        split = split_of(self.file, self.device)
        # The formula's one size is that of a device with all layers; its largest step is in each of them.
        compute = context.compute if len(context.compute) == len(gpus) else context.compute * len(gpus)
        return tuple(
            Column(
                gpu.name,
                gpu.available,
                layers,
                {
                    "weights": weights,
                    "KV cache": n_contexts * -(-context.kv * layers // sum(split)),
                    "compute": n_contexts * compute_bytes,
                    "CUDA": cuda_bytes(self.file, settings, n_contexts),
                },
            )
            for gpu, layers, weights, compute_bytes in zip(
                gpus, split, ModelBytes.of(self.file).on(split), compute, strict=True
            )
        )

    def _advice(self, plan: MemoryPlan) -> str:
        """The smallest change that makes ``plan``, the smallest of all, fit."""
        fullest = min(plan.columns, key=lambda column: column.remaining, default=None)
        terms, total, data = plan.terms, plan.total, self.file.data_bytes
        if fullest is not None:
            terms, total, data = fullest.terms, fullest.total, fullest.terms["weights"]
        per_cell = terms["KV cache"] // plan.settings.n_cells
        short = -plan.remaining
        fitting = plan.longest - _in_steps(-(-short // max(per_cell, 1)))
        if fitting >= CELL_STEP:
            return f"requests of up to {fitting:,} tokens would fit: leave out longer ones, or use fewer --shots"
        where, other = ("", "a device") if fullest is None else (f" on {fullest.name}", "more GPUs, or ones")
        return (
            f"{-(-short // MIB):,} MiB more are needed{where}: free that much, or use {other} with "
            f"{-(-total // MIB):,} MiB for the run ({data / MIB:,.0f} MiB of it weights)"
        )


def _in_steps(cells: int) -> int:
    """``cells``, rounded up to llama.cpp's steps."""
    return -(-cells // CELL_STEP) * CELL_STEP
