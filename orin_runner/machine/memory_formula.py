"""Sizes in bytes that llama.cpp does not say: a formula for a device that is not there, and what lies beside buffers.

llama.cpp sizes a context itself (``orin_runner.model.llama.simulate``), but only for a backend that is present.
``context_bytes`` stands in for it elsewhere, and ``FORMULA`` shows a person what was calculated. CUDA's terms were
measured on an H100 (``benchmarks/RESULTS.md``) and are assumed on other GPUs.
"""

from __future__ import annotations

from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import ContextSettings, Simulated

MIB = 1 << 20
F32_BYTES = 4
KV_BYTES = {"f16": 2, "f32": F32_BYTES}
"""Of one value in the cache, by ``ContextSettings.kv_type``."""
MASK_BYTES = 2
"""Of the attention mask, per token of a ubatch and cell: it is f16."""
LAYER_BYTES = 12
"""Of a layer's intermediate results, per token of a ubatch and value of n_ff + n_embd."""
CUDA_BYTES = 716 * MIB
"""CUDA context, cuBLAS and its workspace beside llama.cpp's buffers, measured on an H100."""
CUBLAS_BYTES = 112 * MIB
"""What a second context takes beside llama.cpp's buffers and its pool, measured on an H100."""
POOL_BYTES, F16_POOL_BYTES = 3, 5
"""Of CUDA's pool, per token of a ubatch and value of n_ff: a line through what 256, 512 and 1,024 tokens took on an
H100. The pool holds the widest product's activations as a 16-bit operand, and half as much beside them. F16 products
have 16-bit results in the pool as well (``ggml_cuda_op_mul_mat_cublas``): assumed."""
PROGRAM_BYTES = 300 * MIB
"""Python, NumPy, llama.cpp's own code and the tokenizer; 180 MiB were measured for the tiny model on a CPU."""
TOKEN_BYTES = 4
"""Of a token id of a request, int32."""
ROWS_IN_FLIGHT = 3
"""Copies of a decode call's output rows on the host: being copied, being scored, waiting."""

FORMULA = (
    f"compute = n_ubatch x {MASK_BYTES} n_cells + max(n_ubatch x {LAYER_BYTES} (n_ff + n_embd), "
    f"n_outputs x {F32_BYTES} (n_vocab + n_embd)); "
    f"CUDA = {CUDA_BYTES // MIB} MiB + n_ubatch x n_ff x {POOL_BYTES} (x {F16_POOL_BYTES} with F16 weights)"
)


def context_bytes(file: GGUFFile, settings: ContextSettings) -> Simulated:
    """Bytes of a context's cache and compute buffers, for a backend that is not there.

    On a CPU neither is ever under llama.cpp's own sizes: a test compares them.
    """
    sizes = file.sizes
    n_embd, n_ff = sizes.embedding_length, sizes.feed_forward_length
    cell_values = sizes.block_count * (sizes.head_count_kv or sizes.head_count) * 2 * sizes.head_size
    # Below n_seq tokens the buffers shrink no further (sched_reserve).
    n_tokens = max(settings.n_ubatch, settings.n_seq)
    mask = n_tokens * MASK_BYTES * settings.n_cells
    layers = n_tokens * LAYER_BYTES * (n_ff + n_embd)
    logits = min(n_tokens, settings.n_outputs) * F32_BYTES * (file.n_vocab + n_embd)
    return Simulated(
        kv=cell_values * KV_BYTES[settings.kv_type] * settings.n_cells,
        compute=(mask + max(layers, logits),),
        compute_host=mask + n_tokens * F32_BYTES * n_embd,
    )


def cuda_bytes(file: GGUFFile, settings: ContextSettings, n_contexts: int) -> int:
    """Bytes that the driver, cuBLAS and CUDA's pools take beside the buffers of ``n_contexts`` contexts."""
    per_value = F16_POOL_BYTES if "F16" in file.tensor_types else POOL_BYTES
    pool = settings.n_ubatch * file.sizes.feed_forward_length * per_value
    return CUDA_BYTES + n_contexts * pool + (n_contexts - 1) * CUBLAS_BYTES


def output_bytes(file: GGUFFile, settings: ContextSettings) -> int:
    """Bytes of one context's output rows, float32 ``[max(n_seq, n_outputs), n_vocab]`` on the host."""
    return max(settings.n_seq, settings.n_outputs) * file.n_vocab * F32_BYTES


def program_bytes(file: GGUFFile, settings: ContextSettings, n_tokens: int) -> int:
    """Bytes of this program: its code, the requests' ``n_tokens`` token ids, the rows it scores."""
    rows = ROWS_IN_FLIGHT * settings.n_outputs * file.n_vocab * F32_BYTES
    return PROGRAM_BYTES + TOKEN_BYTES * n_tokens + rows
