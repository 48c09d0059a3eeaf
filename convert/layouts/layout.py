"""Which GGUF tensors a checkpoint becomes, and with what metadata: the value, and the parts all families share.

Every part of a GGUF tensor is a selection of rows of one checkpoint tensor, times a power of two, so no transform can
change a value's digits and undoing one is putting rows back. Every row of a checkpoint tensor stands in exactly one
part, but where a layout says otherwise: in a ``repeated`` one, or in ``Omitted``. An unknown or missing tensor is an
error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from convert.layouts.shape import Shape

Rows = npt.NDArray[np.int64]
MetadataValue = int | float | str | bool | list[int] | list[bool]

ROTARY = "rotary interleaved"
"""Name, in the manifest, of the transform that ``interleaved`` gives."""

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """``rows`` of checkpoint tensor ``source`` (None: all, in order) as a GGUF tensor, or as the next rows of one.

    Attributes:
        name: of the GGUF tensor; neighbours of one name are stacked.
        shape: of these rows.
        rows: a permutation of a contiguous range.
        transform: name of the selection, for the manifest.
        exponent: every value is multiplied by two to this power.
        repeated: the rows stand in another part as well.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    rows: Rows | None = None
    transform: str = "none"
    exponent: int = 0
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class AddedTensor:
    """An F32 tensor that the layout needs and the checkpoint does not have: one value everywhere, or its values."""

    name: str
    shape: tuple[int, ...]
    value: float | tuple[float, ...]
    reason: str

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """The tensor."""
        return np.full(self.shape, self.value, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Omitted:
    """The first ``rows`` rows of checkpoint tensor ``source``, which no GGUF tensor holds."""

    source: str
    rows: int
    reason: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The plan of a GGUF file.

    Attributes:
        architecture: GGUF's ``general.architecture``.
        tensors: the parts of the GGUF tensors in file order.
        metadata: architecture keys (without the architecture prefix) and values.
        added: they follow ``tensors`` in the file.
        omitted: rows that are left out on purpose.
        duplicates: checkpoint tensors that must equal another one, by name, and are not written; they may be missing.
        window: sliding window in tokens that the file honours, None for none.
        dropped_window: sliding window of the model, in tokens, that the file does not honour.
    """

    architecture: str
    tensors: tuple[OutputTensor, ...]
    metadata: dict[str, MetadataValue]
    added: tuple[AddedTensor, ...] = ()
    omitted: tuple[Omitted, ...] = ()
    duplicates: dict[str, str] = field(default_factory=dict)
    window: int | None = None
    dropped_window: int | None = None

    def by_name(self) -> dict[str, list[OutputTensor]]:
        """The parts of each GGUF tensor, in file order."""
        found: dict[str, list[OutputTensor]] = {}
        for part in self.tensors:
            found.setdefault(part.name, []).append(part)
        return found

    def by_source(self) -> dict[str, list[OutputTensor]]:
        """The parts that each checkpoint tensor becomes, both in file order."""
        found: dict[str, list[OutputTensor]] = {}
        for part in self.tensors:
            found.setdefault(part.source, []).append(part)
        return found

    def sources(self) -> dict[str, tuple[int, ...]]:
        """Shape of every checkpoint tensor that the layout reads."""
        omitted = {entry.source: entry.rows for entry in self.omitted}
        return {
            name: (
                omitted.get(name, 0) + sum(part.shape[0] for part in parts if not part.repeated),
                *parts[0].shape[1:],
            )
            for name, parts in self.by_source().items()
        }

    def uses(self, source: str) -> list[tuple[int, int]]:
        """(exponent, rows left out) of each time that checkpoint tensor ``source`` is written."""
        omitted = sum(entry.rows for entry in self.omitted if entry.source == source)
        kinds = dict.fromkeys((part.exponent, part.repeated) for part in self.tensors if part.source == source)
        return [(exponent, 0 if repeated else omitted) for exponent, repeated in kinds]

    def stacks(self) -> list[list[str]]:
        """The checkpoint tensors, in groups that must have one type because a GGUF tensor holds them all."""
        groups: dict[str, list[str]] = {}
        for parts in self.by_name().values():
            sources = list(dict.fromkeys(part.source for part in parts))
            known = {id(groups[source]) for source in sources if source in groups}
            assert len(known) <= 1
            if not known:
                groups.update(dict.fromkeys(sources, sources))
        return list({id(group): group for group in groups.values()}.values())


def stacked(parts: list[OutputTensor]) -> tuple[int, ...]:
    """Shape of the GGUF tensor that ``parts`` make."""
    return (sum(part.shape[0] for part in parts), *parts[0].shape[1:])


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
    yield OutputTensor("token_embd.weight", EMBEDDING, table)
    yield OutputTensor("output_norm.weight", "model.norm.weight", (shape.n_embd,))
    if not shape.tied:  # llama.cpp uses the embeddings where there is no output.weight
        yield OutputTensor("output.weight", HEAD, table)


def tied_head(shape: Shape) -> dict[str, str]:
    """``duplicates`` of a checkpoint whose output head is its token embedding: some hold it twice."""
    return {HEAD: EMBEDDING} if shape.tied else {}


def layers(n_layers: int, block: Iterable[OutputTensor], prefix: str = "model.layers") -> Iterator[OutputTensor]:
    """The tensors of ``block`` once for each layer; their names and sources lack the layer's prefix."""
    tensors = list(block)
    for n in range(n_layers):
        for tensor in tensors:
            yield replace(tensor, name=f"blk.{n}.{tensor.name}", source=f"{prefix}.{n}.{tensor.source}")


def split_block(shape: Shape, *, norm_rope: bool) -> list[OutputTensor]:
    """A layer with separate q, k, v, gate and up projections, as Llama's.

    Args:
        shape: its sizes.
        norm_rope: the graph rotates neighbouring dimensions, so the q and k rows are interleaved.
    """
    width, q, kv = shape.n_embd, shape.n_q, shape.n_kv
    q_rows, k_rows = (interleaved(n, shape.head_dim) if norm_rope else None for n in (q, kv))
    moved = ROTARY if norm_rope else "none"
    return [
        OutputTensor("attn_norm.weight", "input_layernorm.weight", (width,)),
        OutputTensor("attn_q.weight", "self_attn.q_proj.weight", (q, width), q_rows, moved),
        OutputTensor("attn_k.weight", "self_attn.k_proj.weight", (kv, width), k_rows, moved),
        OutputTensor("attn_v.weight", "self_attn.v_proj.weight", (kv, width)),
        OutputTensor("attn_output.weight", "self_attn.o_proj.weight", (width, q)),
        OutputTensor("ffn_norm.weight", "post_attention_layernorm.weight", (width,)),
        OutputTensor("ffn_gate.weight", "mlp.gate_proj.weight", (shape.n_ff, width)),
        OutputTensor("ffn_up.weight", "mlp.up_proj.weight", (shape.n_ff, width)),
        OutputTensor("ffn_down.weight", "mlp.down_proj.weight", (width, shape.n_ff)),
    ]


def rope_tensors(shape: Shape) -> tuple[AddedTensor, ...]:
    """The factor tensors of the rotary embeddings, if they have any."""
    reason = "divisors of the rotary frequencies, by config.json's rope scaling"
    return tuple(AddedTensor(name, (len(values),), values, reason) for name, values in shape.rope.factors.items())
