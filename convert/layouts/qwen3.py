"""Qwen 3: Llama's network with a norm on every head of q and k, and heads of a size of their own."""

from __future__ import annotations

from convert.checkpoint import Checkpoint
from convert.layouts.layout import Layout, OutputTensor
from convert.layouts.qwen2 import unmoved
from convert.layouts.shape import Shape


def qwen3(checkpoint: Checkpoint, window: str) -> Layout:
    """The layout of llama.cpp's ``qwen3`` graph.

    Raises:
        UserError: a size is missing, or a setting is not supported.
    """
    shape = Shape.of(checkpoint.config)
    norms = [
        OutputTensor("attn_q_norm.weight", "self_attn.q_norm.weight", (shape.head_dim,)),
        OutputTensor("attn_k_norm.weight", "self_attn.k_norm.weight", (shape.head_dim,)),
    ]
    return unmoved("qwen3", checkpoint, shape, norms, window)
