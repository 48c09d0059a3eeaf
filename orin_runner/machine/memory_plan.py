"""The memory plan: what a run will take, before anything is loaded, and the settings that fit.

Everything a run allocates is one of these terms. ``simulated`` sizes are llama.cpp's own: it builds the model and the
context with ``no_alloc`` and logs what it would have allocated. They need the backend that will compute; for a device
that is not there the formula below stands in, and the plan says which terms are assumed.

* weights: the GGUF's tensor table. The token embedding stays on the host.
* KV: layers x key-value heads x (key + value size) x bytes x cells.
* compute: simulated; else u x (12 (n_ff + n_embd) + 2 cells) bytes with u = max(ubatch, sequences), or the logits where
  they are more: min(u, outputs) x (n_vocab + n_embd) x 4.
* outputs: host rows of logits, max(sequences, outputs) x n_vocab x 4.
* CUDA: what the driver and cuBLAS take beside llama.cpp's buffers, and the pool that holds a product's converted
  operands; measured on an H100 (``benchmarks/RESULTS.md``), assumed elsewhere.
* a second context, where there is one: its cache, buffers and rows once more, a second pool, and cuBLAS's workspace.
* host: this program, its tokens, and copies of output rows while they are scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from orin_runner.batching.packer import Budget
from orin_runner.batching.tree import TokenTree
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import LLAMA_MAX_SEQ, ContextSettings, Simulated
from orin_runner.requests import GenerateRequest, Request, ScoreRequest, context_tokens

MIB = 1 << 20
CELL_STEP = 256
"""llama.cpp rounds the cells its attention looks at up to this."""
CANONICAL_CHUNK = 256
"""Tokens per decode call where a position is recomputed alone: a constant, so that no budget can decide a text. It is
the smallest n_batch this program uses."""
UBATCHES = {True: (1024, 512, 256), False: (512, 256)}
"""Ubatch sizes by preference, on a GPU and on a CPU. From 1,024 tokens llama.cpp's CUDA attention skips the unused end
of the cache (``flash_attn_mask_to_KV_max``); below n_seq the compute buffers shrink no further (``sched_reserve``)."""
BATCHES = (2048, 1024, 512, 256)
DECODE_CELLS = 8192
"""Cells for texts being decoded side by side, where memory allows."""
GPU_HOST_THREADS = 2
"""llama.cpp's CPU threads beside a GPU: it only looks embeddings up, and more would stand in the way of scoring."""
PAIR_BATCH = 1024
"""Tokens per decode call of two contexts that take turns: one ubatch, so that a submission never waits for the first
half of its own batch."""
ROWS_IN_FLIGHT = 3
"""Copies of a decode call's output rows on the host: being copied, being scored, waiting."""
PROGRAM_BYTES = 300 * MIB
"""Python, NumPy, llama.cpp's own code and the tokenizer; 180 MiB were measured for the tiny model on a CPU."""
CUDA_BYTES = 716 * MIB
"""CUDA context, cuBLAS and its workspace beside llama.cpp's buffers: what an H100 takes; see benchmarks/RESULTS.md."""

CUBLAS_BYTES = 112 * MIB
"""What a second context takes beside llama.cpp's buffers and its pool."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What a plan is made for.

    Attributes:
        name: as shown.
        available: bytes that the run may take.
        unified: one memory for device and host.
        cuda: computing with CUDA.
        present: it is this machine's, so that llama.cpp can simulate.
        note: where ``available`` comes from.
    """

    name: str
    available: int
    unified: bool
    cuda: bool
    present: bool
    note: str


ORIN_32GB = DeviceMemory(
    name="Jetson AGX Orin 32GB",
    available=(30697 - 1300) * MIB,
    unified=True,
    cuda=True,
    present=False,
    note="30,697 MiB seen by Linux under JetPack 6, less 1,300 MiB for a headless system (assumed)",
)


@dataclass(frozen=True, slots=True)
class Needs:
    """What the requests ask of a context.

    Attributes:
        longest: tokens of the longest path, generated tokens included.
        row_share: output rows per computed token, at most 1.
        generated: whether texts may have to be decoded, many at once.
        tokens: tokens of all requests, which the host holds.
        divisible: two contexts can share the tree.
    """

    longest: int
    row_share: float = 0.0
    generated: bool = False
    tokens: int = 0
    divisible: bool = False


def needs_of(requests: Sequence[Request]) -> Needs:
    """What all of ``requests`` together ask of a context."""
    rows = fresh = tokens = 0
    for request in requests:
        paths = request.candidates if isinstance(request, GenerateRequest) else request.continuations
        # A prompt's last row serves all its choices; a continuation's last token is not computed.
        if isinstance(request, ScoreRequest):
            rows += 1 + sum(n - 1 for n in request.n_scored)
        else:
            rows += 1 + sum(len(path) for path in paths)
        fresh += sum(len(path) - isinstance(request, ScoreRequest) for path in paths)
        tokens += len(request.prompt) + sum(len(path) for path in paths)
    prompts = [request.prompt for request in requests if len(request.prompt)]
    tree = TokenTree(prompts)
    computed = fresh + tree.n_unique
    return Needs(
        longest=max((context_tokens(request) for request in requests), default=1),
        row_share=rows / max(computed, 1),
        generated=any(isinstance(request, GenerateRequest) for request in requests),
        tokens=tokens,
        divisible=tree.middle() > 0,
    )


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Sizes in bytes, and the settings they are for.

    Attributes:
        device: what the plan is made for.
        settings: a context's sizes.
        n_contexts: contexts of these sizes, one or two.
        terms: bytes by name, in the order they are shown.
        on_device: names of the terms that lie in device memory.
        assumed: names of the terms that are neither simulated nor read from the file.
        longest: tokens of the longest request.
        fits: whether everything fits.
        advice: where it does not, the smallest change that makes it fit.
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
    formula: str | None = field(default=None)

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
        """Bytes left; negative where it does not fit."""
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
        }


Simulate = Callable[[ContextSettings], Simulated]
"""llama.cpp's own sizes for settings; see ``orin_runner.model.llama.simulate``."""


def budget_of(settings: ContextSettings) -> Budget:
    """What a decode call may use in a context of these ``settings``."""
    return Budget(settings.n_cells, settings.n_batch, settings.n_seq, settings.n_outputs)


def plan_for(
    file: GGUFFile,
    needs: Needs,
    device: DeviceMemory,
    n_threads: int,
    simulate: Simulate | None = None,
    share: float = 1.0,
) -> MemoryPlan:
    """The first of the preferred settings that fits, or the smallest with ``fits`` False.

    Args:
        file: the model.
        needs: what the requests ask.
        device: where it is to run.
        n_threads: CPU threads.
        simulate: llama.cpp's own sizes, where the device is present.
        share: share of the best plan's cache and buffers to make do with, after that plan has failed.
    """
    smallest: MemoryPlan | None = None
    best: MemoryPlan | None = None
    for settings, n_contexts in _candidates(file, needs, device, n_threads):
        plan = _sized(file, needs, device, settings, simulate, n_contexts)
        if plan.fits and best is None:
            best = plan
        if best is not None and plan.fits and plan.elastic <= share * best.elastic:
            return plan
        if smallest is None or plan.total < smallest.total:
            smallest = plan
    assert smallest is not None
    return smallest if smallest.fits else replace(smallest, advice=_advice(file, needs, smallest))


def plan_that_fits(
    file: GGUFFile,
    needs: Needs,
    lengths: Sequence[int],
    device: DeviceMemory,
    n_threads: int,
    simulate: Simulate | None = None,
    share: float = 1.0,
) -> tuple[MemoryPlan, int]:
    """A plan for as many of the requests as memory allows.

    Args:
        lengths: context tokens of each request.

    Returns:
        (the plan, the longest request it is for); the length is 0 where nothing fits, and the plan then says why.
    """
    whole = plan_for(file, needs, device, n_threads, simulate, share)
    if whole.fits:
        return whole, needs.longest
    choices = sorted({length for length in lengths if length < needs.longest})
    low, high, found = 0, len(choices), None
    while low < high:
        middle = (low + high) // 2
        plan = plan_for(file, replace(needs, longest=choices[middle]), device, n_threads, simulate, share)
        if plan.fits:
            low, found = middle + 1, plan
        else:
            high = middle
    return (found, found.longest) if found is not None else (whole, 0)


def _candidates(
    file: GGUFFile, needs: Needs, device: DeviceMemory, n_threads: int
) -> Iterator[tuple[ContextSettings, int]]:
    """A context's sizes and the number of contexts, the fastest first."""
    longest = min(needs.longest, file.n_ctx_train)
    # While a GPU computes for one context, llama.cpp prepares the other's next batch, 13 ms on an H100's host. A Jetson
    # takes seconds for a batch: there the memory is worth more. A CPU computes within the call.
    pair = device.cuda and not device.unified and needs.divisible and needs.tokens > 2 * PAIR_BATCH
    for n_contexts, n_batch in [(2, PAIR_BATCH)] * pair + [(1, n_batch) for n_batch in BATCHES]:
        # Beside the longest path a full batch; for decoding, room for many sequences at first.
        roomy = needs.generated and (n_contexts == 2 or n_batch == BATCHES[0])
        extras = [n_batch + DECODE_CELLS, n_batch] if roomy else [n_batch]
        for n_ubatch in UBATCHES[device.cuda][: 1 if n_contexts == 2 else None]:
            for extra in extras if n_ubatch <= n_batch else ():
                threads = min(n_threads, GPU_HOST_THREADS) if device.cuda else n_threads
                settings = context_settings(needs, n_batch, n_ubatch, longest + extra, threads)
                yield settings, n_contexts


def context_settings(needs: Needs, n_batch: int, n_ubatch: int, cells: int, n_threads: int) -> ContextSettings:
    """A context with at least so many ``cells``, and output rows for what is asked."""
    # A quarter more rows than average, so that dense stretches of the tree do not cut batches short.
    rows = min(n_batch, max(LLAMA_MAX_SEQ, math.ceil(1.25 * needs.row_share * n_batch)))
    return ContextSettings(_pad(cells), n_batch, n_ubatch, rows, n_threads=n_threads)


def _pad(cells: int) -> int:
    return -(-cells // CELL_STEP) * CELL_STEP


def _sized(
    file: GGUFFile,
    needs: Needs,
    device: DeviceMemory,
    settings: ContextSettings,
    simulate: Simulate | None,
    n_contexts: int = 1,
) -> MemoryPlan:
    embedding, rest = file.embedding_bytes, file.data_bytes - file.embedding_bytes
    sized = simulate(settings) if simulate is not None else _formula(file, settings)
    terms = {
        "weights": rest if device.cuda else file.data_bytes,
        "KV cache": n_contexts * sized.kv,
        "compute": n_contexts * (sized.compute_device + (0 if device.cuda else sized.compute_host)),
    }
    if device.cuda:
        terms["CUDA"] = CUDA_BYTES + n_contexts * _pool(file, settings) + (n_contexts - 1) * CUBLAS_BYTES
    on_device = tuple(terms) if device.cuda or device.unified else ()
    if device.cuda:
        terms["embedding"] = embedding
        terms["host compute"] = n_contexts * sized.compute_host
    terms["outputs"] = n_contexts * max(settings.n_seq, settings.n_outputs) * file.n_vocab * 4
    terms["program"] = PROGRAM_BYTES + 4 * needs.tokens + ROWS_IN_FLIGHT * settings.n_outputs * file.n_vocab * 4
    assumed = ["program"]
    if device.cuda:
        assumed.append("CUDA")
    if simulate is None:
        assumed += ["compute", "host compute"] if device.cuda else ["compute"]
    plan = MemoryPlan(
        device=device,
        settings=settings,
        n_contexts=n_contexts,
        terms=terms,
        on_device=on_device,
        assumed=tuple(name for name in terms if name in assumed),
        longest=needs.longest,
        fits=True,
        formula=None if simulate is not None else FORMULA,
    )
    return replace(plan, fits=plan.remaining >= 0)


FORMULA = (
    "compute = n_ubatch x 2 n_cells + max(n_ubatch x 12 (n_ff + n_embd), n_outputs x 4 (n_vocab + n_embd)); "
    "CUDA = 716 MiB + n_ubatch x n_ff x 3 (x 5 with F16 weights)"
)


def _formula(file: GGUFFile, settings: ContextSettings) -> Simulated:
    """The formula of the module's docstring, for a backend that is not there."""
    n_embd, n_ff = int(file.arch("embedding_length")), int(file.arch("feed_forward_length"))
    item = {"f16": 2, "f32": 4}[settings.kv_type]
    heads = int(file.arch("attention.head_count_kv"))
    size = int(file.arch("attention.key_length") or n_embd // int(file.arch("attention.head_count")))
    n_tokens = max(settings.n_ubatch, settings.n_seq)
    mask = 2 * settings.n_cells * n_tokens
    rows = min(n_tokens, settings.n_outputs)
    layers = n_tokens * 12 * (n_ff + n_embd) + mask
    return Simulated(
        kv=int(file.arch("block_count")) * heads * 2 * size * item * settings.n_cells,
        compute_device=max(layers, rows * 4 * (file.n_vocab + n_embd) + mask),
        compute_host=mask + 4 * n_tokens * n_embd,
    )


def _pool(file: GGUFFile, settings: ContextSettings) -> int:
    """Bytes of CUDA's pool, a line through what 256, 512 and 1,024 tokens took on an H100.

    BF16: the widest product's activations as a 16-bit operand, and half as much beside them. F16 products have 16-bit
    results in the pool as well (``ggml_cuda_op_mul_mat_cublas``): assumed.
    """
    per_value = 5 if "F16" in file.tensor_types else 3
    return settings.n_ubatch * per_value * int(file.arch("feed_forward_length"))


def _advice(file: GGUFFile, needs: Needs, plan: MemoryPlan) -> str:
    """The smallest change that makes ``plan``, the smallest of all, fit."""
    per_cell = plan.terms["KV cache"] // plan.settings.n_cells
    short = -plan.remaining
    cells_over = -(-short // max(per_cell, 1))
    fitting = needs.longest - CELL_STEP * -(-cells_over // CELL_STEP)
    if fitting >= CELL_STEP:
        return f"requests of up to {fitting:,} tokens would fit: leave out longer ones, or use fewer --shots"
    needed = (plan.total + MIB - 1) // MIB
    return (
        f"{-(-short // MIB):,} MiB more are needed: free that much, or use a device with {needed:,} MiB "
        f"for the run ({file.data_bytes / MIB:,.0f} MiB of it weights)"
    )
