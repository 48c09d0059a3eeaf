"""Llama: LLaMA-1 (as many key heads as query heads), Llama 2 and 3, and what is published as one, such as SmolLM2.

Llama 3's rope scaling becomes the factor tensor that llama.cpp's graph reads (``rope_freqs.weight``). The first
conversions of LLaMA-1 have ``max_sequence_length`` in config.json for ``max_position_embeddings``.
"""

from __future__ import annotations

from convert.checkpoint import Checkpoint
from convert.layouts.layout import Layout, ends, layers, rope_tensors, split_block, tied_head
from convert.layouts.rope import DEFAULT, LLAMA3
from convert.layouts.shape import Shape
from orin_runner.errors import UserError


def llama(checkpoint: Checkpoint, _window: str) -> Layout:
    """The layout of llama.cpp's ``llama`` graph.

    Raises:
        UserError: a size is missing, or a setting is not supported.
    """
    config = {"max_position_embeddings": checkpoint.config.get("max_sequence_length"), **checkpoint.config}
    if config.get("sliding_window"):
        reason = "config.json has a sliding window, which no Llama has, in transformers neither"
        raise UserError(reason, "set sliding_window null there")
    return plain(Shape.of(config, (DEFAULT, LLAMA3)), None)


def plain(shape: Shape, dropped_window: int | None) -> Layout:
    """The same for ``shape``, without a window."""
    return Layout(
        "llama",
        (*ends(shape), *layers(shape.n_layers, split_block(shape, norm_rope=True))),
        {**shape.metadata()},
        rope_tensors(shape),
        duplicates=tied_head(shape),
        dropped_window=dropped_window,
    )
