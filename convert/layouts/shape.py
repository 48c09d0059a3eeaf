"""The sizes that ``config.json`` states, and the settings that no supported architecture has.

A setting that would change the network and that no layout writes is refused here; none is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orin_runner.errors import UserError
from orin_runner.model.gguf_keys import CONTEXT_LENGTH


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes every supported architecture has.

    Attributes:
        n_layers, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab: counts.
        n_ctx: positions the model was made for.
        eps: of the RMS norms.
        rope_theta: base of the rotary frequencies.
        tied: whether the output head is the token embedding.
    """

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
    def of(cls, config: dict[str, Any]) -> Shape:
        """The sizes in a parsed ``config.json``.

        Raises:
            UserError: a size is missing or no positive number, or a setting is not supported.
        """

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

    @property
    def n_q(self) -> int:
        """Rows of the query projection."""
        return self.n_head * self.head_dim

    @property
    def n_kv(self) -> int:
        """Rows of the key projection, and of the value projection."""
        return self.n_head_kv * self.head_dim

    def metadata(self) -> dict[str, int | float]:
        """The keys that every architecture has, without the architecture prefix."""
        return {
            "vocab_size": self.n_vocab,
            CONTEXT_LENGTH: self.n_ctx,
            "embedding_length": self.n_embd,
            "block_count": self.n_layers,
            "feed_forward_length": self.n_ff,
            "attention.head_count": self.n_head,
            "attention.head_count_kv": self.n_head_kv,
            "attention.layer_norm_rms_epsilon": float(self.eps),
            "rope.dimension_count": self.head_dim,
            "rope.freq_base": self.rope_theta,
        }
