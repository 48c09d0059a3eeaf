"""Llama: LLaMA-1 (as many key heads as query heads) and every later one without rope scaling."""

from __future__ import annotations

from typing import Any

from convert.layouts.layout import ROTARY, Layout, OutputTensor, ends, interleaved, layers
from convert.layouts.shape import Shape
from orin_runner.errors import UserError


def llama(config: dict[str, Any], _window: str) -> Layout:
    """The layout of llama.cpp's ``llama`` graph.

    Raises:
        UserError: a size is missing, or a setting is not supported.
    """
    shape = Shape.of(config)
    if config.get("sliding_window"):
        raise UserError("a Llama checkpoint with a sliding window is not supported")
    width, q, kv = shape.n_embd, shape.n_q, shape.n_kv
    q_rows, k_rows = interleaved(q, shape.head_dim), interleaved(kv, shape.head_dim)
    block = [
        OutputTensor("attn_norm.weight", "input_layernorm.weight", (width,)),
        OutputTensor("attn_q.weight", "self_attn.q_proj.weight", (q, width), q_rows, ROTARY),
        OutputTensor("attn_k.weight", "self_attn.k_proj.weight", (kv, width), k_rows, ROTARY),
        OutputTensor("attn_v.weight", "self_attn.v_proj.weight", (kv, width)),
        OutputTensor("attn_output.weight", "self_attn.o_proj.weight", (width, q)),
        OutputTensor("ffn_norm.weight", "post_attention_layernorm.weight", (width,)),
        OutputTensor("ffn_gate.weight", "mlp.gate_proj.weight", (shape.n_ff, width)),
        OutputTensor("ffn_up.weight", "mlp.up_proj.weight", (shape.n_ff, width)),
        OutputTensor("ffn_down.weight", "mlp.down_proj.weight", (width, shape.n_ff)),
    ]
    return Layout("llama", (*ends(shape), *layers(shape.n_layers, block)), {**shape.metadata()})
