"""Phi-3 and Phi-4, with their sliding window or as llama.cpp's own plain layout.

llama.cpp's ``phi3`` graph drops the sliding window (``src/models/phi3.cpp``: "Phi SWA is currently disabled"), so a
Phi-3 with a window is written as ``granite_swa`` by default. The differences are three: gate and up are split, the q
and k rows stand in interleaved rotary order, and there are attention sinks.

The variants with long-rope have two sets of frequency divisors, for sequences up to the original context and beyond.
Both stand in the file; which of them llama.cpp takes is said when a model is loaded (``orin_runner.model.llama``).
"""

from __future__ import annotations

import numpy as np

from convert.checkpoint import Checkpoint
from convert.layouts.granite_swa import granite_swa
from convert.layouts.layout import (
    ROTARY,
    Layout,
    OutputTensor,
    Rows,
    ends,
    interleaved,
    layers,
    rope_tensors,
    tied_head,
)
from convert.layouts.rope import DEFAULT, LONGROPE
from convert.layouts.shape import Shape
from orin_runner.errors import UserError
from orin_runner.model.gguf_keys import ORIGINAL_CONTEXT, SLIDING_WINDOW

GATE_UP = "mlp.gate_up_proj.weight"


def phi3(checkpoint: Checkpoint, window: str) -> Layout:
    """The layout of llama.cpp's ``granite_swa`` graph for a window to honour, else of its ``phi3`` graph.

    Raises:
        UserError: a size is missing, or a setting is not supported.
    """
    shape = Shape.of(checkpoint.config, (DEFAULT, LONGROPE), partial=True)
    shape.need_full_heads("phi3")
    size = checkpoint.config.get("sliding_window") or shape.n_ctx
    if size >= shape.n_ctx:
        return _plain(shape, None)
    if window != "exact":
        return _plain(shape, size)
    if shape.rope.n_rot != shape.head_dim or shape.rope.factors:
        raise UserError(
            f"a sliding window of {size} tokens with long-rope or partly rotated heads cannot be honoured",
            "--window off leaves it out; longer prompts then come out different",
        )
    return _windowed(shape, size)


def _plain(shape: Shape, dropped_window: int | None) -> Layout:
    up = OutputTensor("ffn_up.weight", GATE_UP, (2 * shape.n_ff, shape.n_embd))
    return Layout(
        "phi3",
        _tensors(shape, None, [up]),
        {
            ORIGINAL_CONTEXT: shape.n_ctx,
            **shape.metadata(),
            # llama.cpp reads the key, warns and ignores the window; 0 for a model that has none.
            SLIDING_WINDOW: dropped_window or 0,
        },
        rope_tensors(shape),
        duplicates=tied_head(shape),
        dropped_window=dropped_window,
    )


def _windowed(shape: Shape, window: int) -> Layout:
    q, kv, n_ff, head_dim = shape.n_q, shape.n_kv, shape.n_ff, shape.head_dim
    rotated = np.concatenate([interleaved(q, head_dim), q + interleaved(kv, head_dim), np.arange(q + kv, q + 2 * kv)])
    half = (n_ff, shape.n_embd)
    gate = OutputTensor("ffn_gate.weight", GATE_UP, half, np.arange(n_ff), "first half")
    up = OutputTensor("ffn_up.weight", GATE_UP, half, np.arange(n_ff, 2 * n_ff), "second half")
    return granite_swa(shape, _tensors(shape, rotated, [gate, up]), window)


def _tensors(shape: Shape, qkv_rows: Rows | None, gate_up: list[OutputTensor]) -> tuple[OutputTensor, ...]:
    width, q = shape.n_embd, shape.n_q
    qkv, transform = (q + 2 * shape.n_kv, width), "none" if qkv_rows is None else ROTARY
    block = [
        OutputTensor("attn_norm.weight", "input_layernorm.weight", (width,)),
        OutputTensor("attn_qkv.weight", "self_attn.qkv_proj.weight", qkv, qkv_rows, transform),
        OutputTensor("attn_output.weight", "self_attn.o_proj.weight", (width, q)),
        OutputTensor("ffn_norm.weight", "post_attention_layernorm.weight", (width,)),
        OutputTensor("ffn_down.weight", "mlp.down_proj.weight", (width, shape.n_ff)),
        *gate_up,
    ]
    return (*ends(shape), *layers(shape.n_layers, block))
