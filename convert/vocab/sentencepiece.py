"""SentencePiece BPE with byte fallback, as Llama and Phi-3 have: what llama.cpp calls tokenizer model ``llama``."""

from __future__ import annotations

from typing import Any

from gguf import TokenType

from convert.vocab.rows import rows

MODEL = "llama"
PRE = "default"
"""llama.cpp's names of the tokenizer model and of its pre-tokenizer."""

UNUSED_SCORE = -10000.0
ADDED_SCORE = -1000.0


def is_sentencepiece(model: dict[str, Any]) -> bool:
    """Whether ``model``, of a serialized ``tokenizers.Tokenizer``, is of this kind."""
    return model.get("type") == "BPE" and bool(model.get("byte_fallback"))


def pieces(
    model: dict[str, Any], added_tokens: list[dict[str, Any]], n_rows: int, unknown: int | None
) -> tuple[list[str], list[float], list[int]]:
    """Text, score and ``gguf.TokenType`` of every token, one entry per embedding row.

    Args:
        model, added_tokens: as in a serialized ``tokenizers.Tokenizer``.
        n_rows: rows of the embedding matrix; rows without a token become unused tokens.
        unknown: id of the unknown token.

    Raises:
        UserError: there are fewer rows than tokens.
    """
    vocab: dict[str, int] = model["vocab"]
    tokens, types = rows(vocab, added_tokens, n_rows)
    scores = [UNUSED_SCORE] * n_rows
    # llama.cpp joins the neighbours whose piece has the highest score, tokenizers those whose merge ranks first.
    rank: dict[str, int] = {}
    for pair in model["merges"]:
        piece = "".join(pair.split(" ", 1) if isinstance(pair, str) else pair)
        rank.setdefault(piece, len(rank))
    added = {token["id"] for token in added_tokens}
    for piece, i in vocab.items():
        scores[i] = -float(rank.get(piece, len(rank)))
        if i not in added and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            types[i] = int(TokenType.BYTE)
    for i in added:
        scores[i] = ADDED_SCORE
    if unknown is not None:
        types[unknown] = int(TokenType.UNKNOWN)
    return tokens, scores, types
