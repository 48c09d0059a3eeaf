"""llama.cpp's ``granite_swa`` graph (``src/models/granite-swa.cpp``), for Llama-shaped networks with a sliding window.

It is Llama's network with a window for each layer and an attention sink for each head. A sink of -1e30 has a softmax
weight of exactly 0. No family is made for this graph; those whose own graph drops the window borrow it.
"""

from __future__ import annotations

from convert.layouts.layout import AddedTensor, Layout, OutputTensor, rope_tensors, tied_head
from convert.layouts.shape import Shape
from orin_runner.model.gguf_keys import SLIDING_WINDOW, SLIDING_WINDOW_PATTERN

SINK = -1e30


def granite_swa(shape: Shape, tensors: tuple[OutputTensor, ...], window: int) -> Layout:
    """The layout with ``window`` in every layer.

    Args:
        shape: the network's sizes; heads are rotated as a whole.
        tensors: all of them, with the q and k rows interleaved.
        window: in tokens.
    """
    reason = "the layout requires attention sinks; exp(-1e30) is 0, so they change nothing"
    sinks = (AddedTensor(f"blk.{n}.attn_sinks.weight", (shape.n_head,), SINK, reason) for n in range(shape.n_layers))
    return Layout(
        "granite_swa",
        tensors,
        {
            **shape.metadata(),
            "logit_scale": 1.0,
            SLIDING_WINDOW: window,
            SLIDING_WINDOW_PATTERN: [True] * shape.n_layers,
            "attention.rope_pattern": [1] * shape.n_layers,
            "deepstack_mapping": [-1] * shape.n_layers,
        },
        (*rope_tensors(shape), *sinks),
        duplicates=tied_head(shape),
        window=window,
    )
