"""Which tokens end a text, by what a GGUF says itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orin_runner.model import gguf_keys

if TYPE_CHECKING:
    from orin_runner.model.gguf_schema import Keys

ENDS = (
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<turn|>", "<|eom_id|>", "<|return|>"),
    *("<|endoftext|>", "<|end_of_text|>", "<end_of_utterance>", "<EOT>", "_<EOT>", "[EOT]"),
    "<\N{FULLWIDTH VERTICAL LINE}end\u2581of\u2581sentence\N{FULLWIDTH VERTICAL LINE}>",
)
"""Tokens at whose texts llama.cpp ends a generation, named by a key or not (``llama-vocab.cpp``, special_eog_ids)."""
MESSAGE_END, ANSWER_END = "<|end|>", "<|return|>"
"""In a vocabulary with the second, the first one only ends a part of an answer."""


def stop_tokens(keys: Keys) -> dict[int, str]:
    """By token that ends a text, what says so: a key, or the token's own text.

    A list that the converter has written is all there is. Other converters name one token or two, which need not be
    the one that ends an answer in a chat: there the tokens that llama.cpp knows by their texts count as well.
    """
    if keys.stop_tokens is not None:
        return dict.fromkeys(keys.stop_tokens, gguf_keys.STOP_TOKENS)
    named = {
        gguf_keys.SPECIAL_TOKENS["eos"]: keys.eos,
        gguf_keys.END_OF_TURN: keys.end_of_turn,
        gguf_keys.END_OF_MESSAGE: keys.end_of_message,
    }
    found = {token: key for key, token in named.items() if token is not None}
    tokens = keys.tokens or []
    ends = {MESSAGE_END} if ANSWER_END in tokens else set()
    for token, text in enumerate(tokens):
        if text in ENDS and text not in ends:
            found.setdefault(token, "its text")
    return found
