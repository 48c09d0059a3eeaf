"""Which GGUF tensors a checkpoint becomes, and with what metadata.

Every GGUF tensor is a selection of rows of one checkpoint tensor, so no transform can change a value and undoing one is
putting rows back. An unknown or missing tensor is an error; a deliberate omission stands in ``SKIPPED``.

Phi-3's sliding window is dropped by llama.cpp's ``phi3`` graph (``src/models/phi3.cpp``: "Phi SWA is currently
disabled"). Its ``granite_swa`` graph (``src/models/granite-swa.cpp``) is the same network with a per-layer window, so
the default layout writes Phi-3 as that: gate and up split, the q and k rows in interleaved rotary order, and attention
sinks of -1e30, whose softmax weight is exactly 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orin_runner.errors import UserError

Rows = npt.NDArray[np.int64]
MetadataValue = int | float | str | bool | list[int] | list[bool]

SINK = -1e30
SKIPPED = ("rotary_emb.inv_freq",)
"""Ends of the names of tensors left out on purpose: recomputed from rope_theta by every implementation."""


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """A GGUF tensor: ``rows`` of checkpoint tensor ``source`` (None: all, in order)."""

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
        sources: shape of every checkpoint tensor the layout reads.
        added: constant tensors.
        metadata: architecture keys (without the architecture prefix) and values.
        window: sliding window that the file honours, None for none.
        dropped_window: sliding window of the model that the file does not honour.
    """

    architecture: str
    tensors: tuple[OutputTensor, ...]
    sources: dict[str, tuple[int, ...]]
    added: tuple[AddedTensor, ...]
    metadata: dict[str, MetadataValue]
    window: int | None
    dropped_window: int | None


@dataclass(frozen=True, slots=True)
class _Shape:
    """The sizes every supported architecture has."""

    n_layers: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_vocab: int
    n_ctx: int
    eps: float
    rope_theta: float
    tied: bool

    @classmethod
    def of(cls, config: dict[str, Any]) -> _Shape:
        def need(key: str) -> Any:
            if config.get(key) is None:
                raise UserError(f"config.json has no {key}", "name a complete checkpoint folder")
            if not isinstance(config[key], int | float) or config[key] <= 0:
                raise UserError(f"config.json has {key} {config[key]!r}, which is no positive number")
            return config[key]

        rope = config.get("rope_parameters") or {}
        scaling = config.get("rope_scaling") or {}
        kind = scaling.get("rope_type") or scaling.get("type") or rope.get("rope_type") or "default"
        if kind != "default":
            raise UserError(f"rope scaling of type {kind!r} is not supported; only checkpoints without it can be exact")
        if config.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1.0)) != 1.0:
            raise UserError("partial_rotary_factor is not supported; only fully rotary checkpoints can be exact")
        for flag in ("attention_bias", "mlp_bias"):
            if config.get(flag):
                raise UserError(f"config.json sets {flag}, which no supported architecture has")
        n_head, n_embd = need("num_attention_heads"), need("hidden_size")
        return cls(
            n_layers=need("num_hidden_layers"),
            n_embd=n_embd,
            n_ff=need("intermediate_size"),
            n_head=n_head,
            n_head_kv=config.get("num_key_value_heads") or n_head,
            head_dim=config.get("head_dim") or n_embd // n_head,
            n_vocab=need("vocab_size"),
            n_ctx=need("max_position_embeddings"),
            eps=need("rms_norm_eps"),
            rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
            tied=bool(config.get("tie_word_embeddings")),
        )

    def metadata(self) -> dict[str, MetadataValue]:
        return {
            "vocab_size": self.n_vocab,
            "context_length": self.n_ctx,
            "embedding_length": self.n_embd,
            "block_count": self.n_layers,
            "feed_forward_length": self.n_ff,
            "attention.head_count": self.n_head,
            "attention.head_count_kv": self.n_head_kv,
            "attention.layer_norm_rms_epsilon": float(self.eps),
            "rope.dimension_count": self.head_dim,
            "rope.freq_base": self.rope_theta,
        }


def interleaved(n_rows: int, head_dim: int) -> Rows:
    """Rows of a q or k projection in interleaved rotary order.

    Hugging Face rotates dimension i with i + d/2, llama.cpp's NORM rope dimension 2i with 2i + 1: row 2i of a head is
    its old row i, row 2i + 1 its old row i + d/2.
    """
    rows: Rows = np.arange(n_rows).reshape(-1, 2, head_dim // 2).swapaxes(1, 2).reshape(-1)
    return rows


def layout_for(config: dict[str, Any], window: str) -> Layout:
    """The layout for a checkpoint's ``config.json``.

    Args:
        config: the parsed file.
        window: ``"exact"`` honours the model's sliding window, ``"off"`` writes llama.cpp's own plain layout.

    Raises:
        UserError: the architecture or one of its settings is not supported.
    """
    names = config.get("architectures") or [config.get("model_type")]
    builder = _BUILDERS.get(str(names[0]))
    if builder is None:
        raise UserError(f"architecture {names[0]} is not supported", f"supported: {', '.join(sorted(_BUILDERS))}")
    return builder(config, window)


def _llama(config: dict[str, Any], _window: str) -> Layout:
    shape = _Shape.of(config)
    if config.get("sliding_window"):
        raise UserError("a Llama checkpoint with a sliding window is not supported")
    kv = shape.n_head_kv * shape.head_dim
    q = shape.n_head * shape.head_dim
    tensors = list(_ends(shape))
    for n in range(shape.n_layers):
        source, target = f"model.layers.{n}.", f"blk.{n}."
        tensors += [
            OutputTensor(target + "attn_norm.weight", source + "input_layernorm.weight", (shape.n_embd,)),
            OutputTensor(
                target + "attn_q.weight",
                source + "self_attn.q_proj.weight",
                (q, shape.n_embd),
                interleaved(q, shape.head_dim),
                "rotary interleaved",
            ),
            OutputTensor(
                target + "attn_k.weight",
                source + "self_attn.k_proj.weight",
                (kv, shape.n_embd),
                interleaved(kv, shape.head_dim),
                "rotary interleaved",
            ),
            OutputTensor(target + "attn_v.weight", source + "self_attn.v_proj.weight", (kv, shape.n_embd)),
            OutputTensor(target + "attn_output.weight", source + "self_attn.o_proj.weight", (shape.n_embd, q)),
            OutputTensor(target + "ffn_norm.weight", source + "post_attention_layernorm.weight", (shape.n_embd,)),
            OutputTensor(target + "ffn_gate.weight", source + "mlp.gate_proj.weight", (shape.n_ff, shape.n_embd)),
            OutputTensor(target + "ffn_up.weight", source + "mlp.up_proj.weight", (shape.n_ff, shape.n_embd)),
            OutputTensor(target + "ffn_down.weight", source + "mlp.down_proj.weight", (shape.n_embd, shape.n_ff)),
        ]
    return Layout("llama", tuple(tensors), _sources(tensors), (), shape.metadata(), None, None)


def _phi3(config: dict[str, Any], window: str) -> Layout:
    shape = _Shape.of(config)
    size = config.get("sliding_window") or shape.n_ctx
    has_window = size < shape.n_ctx
    exact = has_window and window == "exact"
    q, kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    qkv = q + 2 * kv
    rotated = np.concatenate(
        [interleaved(q, shape.head_dim), q + interleaved(kv, shape.head_dim), np.arange(q + kv, qkv)]
    )
    tensors = list(_ends(shape))
    added = []
    for n in range(shape.n_layers):
        source, target = f"model.layers.{n}.", f"blk.{n}."
        gate_up, qkv_source = source + "mlp.gate_up_proj.weight", source + "self_attn.qkv_proj.weight"
        tensors += [
            OutputTensor(target + "attn_norm.weight", source + "input_layernorm.weight", (shape.n_embd,)),
            OutputTensor(target + "attn_qkv.weight", qkv_source, (qkv, shape.n_embd), rotated, "rotary interleaved")
            if exact
            else OutputTensor(target + "attn_qkv.weight", qkv_source, (qkv, shape.n_embd)),
            OutputTensor(target + "attn_output.weight", source + "self_attn.o_proj.weight", (shape.n_embd, q)),
            OutputTensor(target + "ffn_norm.weight", source + "post_attention_layernorm.weight", (shape.n_embd,)),
            OutputTensor(target + "ffn_down.weight", source + "mlp.down_proj.weight", (shape.n_embd, shape.n_ff)),
        ]
        if exact:
            half = (shape.n_ff, shape.n_embd)
            tensors += [
                OutputTensor(target + "ffn_gate.weight", gate_up, half, np.arange(shape.n_ff), "first half"),
                OutputTensor(
                    target + "ffn_up.weight", gate_up, half, np.arange(shape.n_ff, 2 * shape.n_ff), "second half"
                ),
            ]
            added.append(
                AddedTensor(
                    target + "attn_sinks.weight",
                    (shape.n_head,),
                    SINK,
                    "the layout requires attention sinks; exp(-1e30) is 0, so they change nothing",
                )
            )
        else:
            tensors.append(OutputTensor(target + "ffn_up.weight", gate_up, (2 * shape.n_ff, shape.n_embd)))
    sources = _sources(tensors)
    for n in range(shape.n_layers):
        sources[f"model.layers.{n}.mlp.gate_up_proj.weight"] = (2 * shape.n_ff, shape.n_embd)
    metadata = shape.metadata()
    if not exact:
        # llama.cpp reads the key, warns and ignores the window; 0 for a model that has none.
        metadata["attention.sliding_window"] = size if has_window else 0
        metadata["rope.scaling.original_context_length"] = shape.n_ctx
        return Layout("phi3", tuple(tensors), sources, (), metadata, None, size if has_window else None)
    metadata.update(
        {
            "logit_scale": 1.0,
            "attention.sliding_window": size,
            "attention.sliding_window_pattern": [True] * shape.n_layers,
            "attention.rope_pattern": [1] * shape.n_layers,
            "deepstack_mapping": [-1] * shape.n_layers,
        }
    )
    return Layout("granite_swa", tuple(tensors), sources, tuple(added), metadata, size, None)


def _ends(shape: _Shape) -> Iterator[OutputTensor]:
    table = (shape.n_vocab, shape.n_embd)
    yield OutputTensor("token_embd.weight", "model.embed_tokens.weight", table)
    yield OutputTensor("output_norm.weight", "model.norm.weight", (shape.n_embd,))
    if not shape.tied:  # llama.cpp uses the embeddings where there is no output.weight
        yield OutputTensor("output.weight", "lm_head.weight", table)


def _sources(tensors: list[OutputTensor]) -> dict[str, tuple[int, ...]]:
    return {tensor.source: tensor.shape for tensor in tensors}


_BUILDERS: dict[str, Callable[[dict[str, Any], str], Layout]] = {
    "LlamaForCausalLM": _llama,
    "LLaMAForCausalLM": _llama,
    "Phi3ForCausalLM": _phi3,
}
