"""Phi-3, with its sliding window or as llama.cpp's own plain layout.

llama.cpp's ``phi3`` graph drops the sliding window (``src/models/phi3.cpp``: "Phi SWA is currently disabled"). Its
``granite_swa`` graph (``src/models/granite-swa.cpp``) is the same network with a per-layer window, so a Phi-3 with a
window is written as that by default. The differences are three: gate and up are split, the q and k rows stand in
interleaved rotary order, and every head has an attention sink of -1e30, whose softmax weight is exactly 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.layouts.layout import ROTARY, AddedTensor, Layout, OutputTensor, Rows, ends, interleaved, layers
from convert.layouts.shape import Shape
from orin_runner.model.gguf_keys import SLIDING_WINDOW, SLIDING_WINDOW_PATTERN

SINK = -1e30
GATE_UP = "mlp.gate_up_proj.weight"
NAME_MARKS = ("phi-3", "phi3")
"""llama.cpp strips white space after special tokens, as Phi-3 does, only under such a name (llama-vocab.cpp)."""


def phi3(config: dict[str, Any], window: str) -> Layout:
    """The layout of llama.cpp's ``granite_swa`` graph for a window to honour, else of its ``phi3`` graph.

    Raises:
        UserError: a size is missing, or a setting is not supported.
    """
    shape = Shape.of(config)
    size = config.get("sliding_window") or shape.n_ctx
    if size >= shape.n_ctx:
        return _plain(shape, None)
    return _windowed(shape, size) if window == "exact" else _plain(shape, size)


def _plain(shape: Shape, dropped_window: int | None) -> Layout:
    up = OutputTensor("ffn_up.weight", GATE_UP, (2 * shape.n_ff, shape.n_embd))
    return Layout(
        "phi3",
        _tensors(shape, None, [up]),
        {
            **shape.metadata(),
            # llama.cpp reads the key, warns and ignores the window; 0 for a model that has none.
            SLIDING_WINDOW: dropped_window or 0,
            "rope.scaling.original_context_length": shape.n_ctx,
        },
        dropped_window=dropped_window,
        name_marks=NAME_MARKS,
    )


def _windowed(shape: Shape, window: int) -> Layout:
    q, kv, n_ff, head_dim = shape.n_q, shape.n_kv, shape.n_ff, shape.head_dim
    rotated = np.concatenate([interleaved(q, head_dim), q + interleaved(kv, head_dim), np.arange(q + kv, q + 2 * kv)])
    half = (n_ff, shape.n_embd)
    gate = OutputTensor("ffn_gate.weight", GATE_UP, half, np.arange(n_ff), "first half")
    up = OutputTensor("ffn_up.weight", GATE_UP, half, np.arange(n_ff, 2 * n_ff), "second half")
    reason = "the layout requires attention sinks; exp(-1e30) is 0, so they change nothing"
    return Layout(
        "granite_swa",
        _tensors(shape, rotated, [gate, up]),
        {
            **shape.metadata(),
            "logit_scale": 1.0,
            SLIDING_WINDOW: window,
            SLIDING_WINDOW_PATTERN: [True] * shape.n_layers,
            "attention.rope_pattern": [1] * shape.n_layers,
            "deepstack_mapping": [-1] * shape.n_layers,
        },
        tuple(AddedTensor(f"blk.{n}.attn_sinks.weight", (shape.n_head,), SINK, reason) for n in range(shape.n_layers)),
        window=window,
        name_marks=NAME_MARKS,
    )


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
