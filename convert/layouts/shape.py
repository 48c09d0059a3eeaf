"""The sizes that ``config.json`` states, and the settings that no supported architecture has.

A setting that would change the network and that no layout writes is refused here; none is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from convert.layouts.rope import DEFAULT, Rope
from convert.schemas import DAMAGED, ELSEWHERE, OF_ONE_MODEL
from orin_runner.errors import UserError
from orin_runner.model.gguf_keys import CONTEXT_LENGTH

SILU = ("silu", "swish")


def need(config: dict[str, Any], key: str) -> Any:
    """The positive number under ``key`` of a parsed ``config.json``.

    Raises:
        UserError: it is missing or no positive number.
    """
    if config.get(key) is None:
        raise UserError(f"config.json has no {key}", "name a complete checkpoint folder")
    if not isinstance(config[key], int | float) or config[key] <= 0:
        raise UserError(f"config.json has {key} {config[key]!r}, which is no positive number", DAMAGED)
    return config[key]


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes that every architecture with RMS norms and rotary embeddings has.

    Attributes:
        n_layers, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab: counts.
        n_ctx: positions the model was made for.
        eps: of the RMS norms.
        rope: the rotary embeddings.
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
    rope: Rope
    tied: bool

    @classmethod
    def of(cls, config: dict[str, Any], ropes: tuple[str, ...] = (DEFAULT,), *, partial: bool = False) -> Shape:
        """The sizes in a parsed ``config.json``.

        Args:
            config: the parsed file.
            ropes: kinds of rotary embeddings that the layout can express.
            partial: whether it can rotate a part of a head.

        Raises:
            UserError: a size is missing or no positive number, or a setting is not supported.
        """
        for flag in ("attention_bias", "mlp_bias", "lm_head_bias"):
            if config.get(flag):
                raise UserError(f"config.json sets {flag}, which no supported architecture has", ELSEWHERE)
        if config.get("hidden_act", SILU[0]) not in SILU:
            reason = f"config.json has hidden_act {config['hidden_act']!r}; only {SILU[0]} is supported"
            raise UserError(reason, ELSEWHERE)
        n_head, n_embd, n_ctx = (
            need(config, key) for key in ("num_attention_heads", "hidden_size", "max_position_embeddings")
        )
        head_dim = config.get("head_dim") or n_embd // n_head
        return cls(
            n_layers=need(config, "num_hidden_layers"),
            n_embd=n_embd,
            n_ff=need(config, "intermediate_size"),
            n_head=n_head,
            n_head_kv=config.get("num_key_value_heads") or n_head,
            head_dim=head_dim,
            n_vocab=need(config, "vocab_size"),
            n_ctx=n_ctx,
            eps=need(config, "rms_norm_eps"),
            rope=Rope.of(config, head_dim, n_ctx, ropes, partial=partial),
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

    def need_full_heads(self, architecture: str) -> None:
        """Refuse heads that together are not as wide as the model.

        Raises:
            UserError: they are not.
        """
        if self.n_q != self.n_embd:
            raise UserError(
                f"{self.n_head} heads of {self.head_dim} are not the hidden size {self.n_embd}, as llama.cpp's "
                f"{architecture} graph has it",
                f"num_attention_heads times head_dim must be hidden_size; {OF_ONE_MODEL}",
            )

    def metadata(self) -> dict[str, int | float]:
        """The keys that every such architecture has, without the architecture prefix."""
        return {
            "vocab_size": self.n_vocab,
            CONTEXT_LENGTH: self.n_ctx,
            "embedding_length": self.n_embd,
            "block_count": self.n_layers,
            "feed_forward_length": self.n_ff,
            "attention.head_count": self.n_head,
            "attention.head_count_kv": self.n_head_kv,
            "attention.key_length": self.head_dim,
            "attention.value_length": self.head_dim,
            "attention.layer_norm_rms_epsilon": float(self.eps),
            **self.rope.metadata(),
        }
