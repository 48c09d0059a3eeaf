"""Mistral: Llama's network, of which version 0.1 has a sliding window of 4,096 tokens.

llama.cpp's ``llama`` graph drops the window, so a Mistral with one is written as ``granite_swa`` by default. Later
versions have none.
"""

from __future__ import annotations

from convert.checkpoint import Checkpoint
from convert.layouts.granite_swa import granite_swa
from convert.layouts.layout import Layout, ends, layers, split_block
from convert.layouts.llama import plain
from convert.layouts.shape import Shape


def mistral(checkpoint: Checkpoint, window: str) -> Layout:
    """The layout of llama.cpp's ``granite_swa`` graph for a window to honour, else of its ``llama`` graph.

    Raises:
        UserError: a size is missing, or a setting is not supported.
    """
    shape = Shape.of(checkpoint.config)
    size = checkpoint.config.get("sliding_window") or shape.n_ctx
    if size >= shape.n_ctx:
        return plain(shape, None)
    if window != "exact":
        return plain(shape, size)
    tensors = (*ends(shape), *layers(shape.n_layers, split_block(shape, norm_rope=True)))
    return granite_swa(shape, tensors, size)
