"""Which GGUF tensors a checkpoint becomes, and with what metadata: the value, and the parts all families share.

Every GGUF tensor is a selection of rows of one checkpoint tensor, so no transform can change a value and undoing one is
putting rows back. Every row of a checkpoint tensor stands in exactly one GGUF tensor. An unknown or missing tensor is
an error; a deliberate omission stands in ``SKIPPED``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from convert.layouts.shape import Shape

Rows = npt.NDArray[np.int64]
MetadataValue = int | float | str | bool | list[int] | list[bool]

SKIPPED = ("rotary_emb.inv_freq",)
"""Ends of the names of tensors left out on purpose: recomputed from rope_theta by every implementation."""

ROTARY = "rotary interleaved"
"""Name, in the manifest, of the transform that ``interleaved`` gives."""


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """A GGUF tensor: ``rows`` of checkpoint tensor ``source`` (None: all, in order).

    Attributes:
        shape: of the GGUF tensor, rows first.
        rows: a permutation of a contiguous range.
        transform: name of the selection, for the manifest.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    rows: Rows | None = None
    transform: str = "none"


@dataclass(frozen=True, slots=True)
class AddedTensor:
    """A constant F32 tensor that the layout needs and the checkpoint does not have."""

    name: str
    shape: tuple[int, ...]
    value: float
    reason: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The plan of a GGUF file.

    Attributes:
        architecture: GGUF's ``general.architecture``.
        tensors: GGUF tensors in file order.
        metadata: architecture keys (without the architecture prefix) and values.
        added: constant tensors; they follow ``tensors`` in the file.
        window: sliding window in tokens that the file honours, None for none.
        dropped_window: sliding window of the model, in tokens, that the file does not honour.
        name_marks: parts of a model's name, in lower case, of which llama.cpp wants to see one; none for any name.
    """

    architecture: str
    tensors: tuple[OutputTensor, ...]
    metadata: dict[str, MetadataValue]
    added: tuple[AddedTensor, ...] = ()
    window: int | None = None
    dropped_window: int | None = None
    name_marks: tuple[str, ...] = ()

    def by_source(self) -> dict[str, list[OutputTensor]]:
        """The GGUF tensors that each checkpoint tensor becomes, both in file order."""
        found: dict[str, list[OutputTensor]] = {}
        for tensor in self.tensors:
            found.setdefault(tensor.source, []).append(tensor)
        return found

    def sources(self) -> dict[str, tuple[int, ...]]:
        """Shape of every checkpoint tensor that the layout reads."""
        return {
            name: (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
            for name, parts in self.by_source().items()
        }

    def model_name(self, name: str) -> str:
        """``name``, with the first of ``name_marks`` before it where it has none of them."""
        if not self.name_marks or any(mark in name.lower() for mark in self.name_marks):
            return name
        return f"{self.name_marks[0]} {name}"


def interleaved(n_rows: int, head_dim: int) -> Rows:
    """Rows of a q or k projection in interleaved rotary order.

    Hugging Face rotates dimension i with i + d/2, llama.cpp's NORM rope dimension 2i with 2i + 1: row 2i of a head is
    its old row i, row 2i + 1 its old row i + d/2.
    """
    rows: Rows = np.arange(n_rows).reshape(-1, 2, head_dim // 2).swapaxes(1, 2).reshape(-1)
    return rows


def ends(shape: Shape) -> Iterator[OutputTensor]:
    """The tensors before and after the layers: token embedding, last norm and output head."""
    table = (shape.n_vocab, shape.n_embd)
    yield OutputTensor("token_embd.weight", "model.embed_tokens.weight", table)
    yield OutputTensor("output_norm.weight", "model.norm.weight", (shape.n_embd,))
    if not shape.tied:  # llama.cpp uses the embeddings where there is no output.weight
        yield OutputTensor("output.weight", "lm_head.weight", table)


def layers(n_layers: int, block: Iterable[OutputTensor]) -> Iterator[OutputTensor]:
    """The tensors of ``block`` once for each layer; their names and sources lack the layer's prefix."""
    tensors = list(block)
    for n in range(n_layers):
        for tensor in tensors:
            yield replace(tensor, name=f"blk.{n}.{tensor.name}", source=f"model.layers.{n}.{tensor.source}")
