"""Qwen 2 and 2.5: Llama's network with biases on q, k and v.

llama.cpp's graphs of Qwen rotate as Hugging Face does, so no row moves.
"""

from __future__ import annotations

from convert.checkpoint import Checkpoint
from convert.layouts.layout import Layout, OutputTensor, ends, layers, split_block, tied_head
from convert.layouts.shape import Shape
from orin_runner.errors import UserError


def qwen2(checkpoint: Checkpoint, window: str) -> Layout:
    """The layout of llama.cpp's ``qwen2`` graph.

    Raises:
        UserError: a size is missing, or a setting is not supported.
    """
    shape = Shape.of(checkpoint.config)
    shape.need_full_heads("qwen2")
    biases = [
        OutputTensor("attn_q.bias", "self_attn.q_proj.bias", (shape.n_q,)),
        OutputTensor("attn_k.bias", "self_attn.k_proj.bias", (shape.n_kv,)),
        OutputTensor("attn_v.bias", "self_attn.v_proj.bias", (shape.n_kv,)),
    ]
    return unmoved("qwen2", checkpoint, shape, biases, window)


def unmoved(architecture: str, checkpoint: Checkpoint, shape: Shape, more: list[OutputTensor], window: str) -> Layout:
    """The layout of one of these graphs, with ``more`` tensors in each layer.

    Raises:
        UserError: the sliding window is on, and is to be honoured.
    """
    config = checkpoint.config
    # sliding_window is set in every config; use_sliding_window says whether the layers from max_window_layers on, or
    # those that layer_types names, have it.
    below = config.get("max_window_layers") or 0
    kinds = config.get("layer_types") or ["sliding_attention"] * (shape.n_layers - below)
    windowed = config.get("use_sliding_window") and "sliding_attention" in kinds
    size = (config.get("sliding_window") if windowed else None) or shape.n_ctx
    dropped = size if size < shape.n_ctx else None
    if dropped and window == "exact":
        raise UserError(
            f"the sliding window of {dropped} tokens cannot be honoured: llama.cpp's {architecture} graph has none",
            "--window off leaves it out; longer prompts then come out different",
        )
    block = [*split_block(shape, norm_rope=False), *more]
    return Layout(
        architecture,
        (*ends(shape), *layers(shape.n_layers, block)),
        {**shape.metadata()},
        duplicates=tied_head(shape),
        dropped_window=dropped,
    )
