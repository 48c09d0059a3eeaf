"""SentencePiece BPE with byte fallback, as Llama and Phi-3 have: what llama.cpp calls tokenizer model ``llama``."""

from __future__ import annotations

from typing import Any

from gguf import TokenType

from orin_runner.errors import UserError

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
    highest = max([*vocab.values(), *(token["id"] for token in added_tokens)])
    if highest >= n_rows:
        raise UserError(f"the tokenizer has a token {highest}, the embeddings only {n_rows} rows")
    tokens = [f"[PAD{i}]" for i in range(n_rows)]
    scores = [UNUSED_SCORE] * n_rows
    types = [int(TokenType.UNUSED)] * n_rows
    # llama.cpp joins the neighbours whose piece has the highest score, tokenizers those whose merge ranks first.
    rank: dict[str, int] = {}
    for pair in model["merges"]:
        piece = "".join(pair.split(" ", 1) if isinstance(pair, str) else pair)
        rank.setdefault(piece, len(rank))
    for piece, i in vocab.items():
        tokens[i] = piece
        scores[i] = -float(rank.get(piece, len(rank)))
        is_byte = len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
        types[i] = int(TokenType.BYTE if is_byte else TokenType.NORMAL)
    for token in added_tokens:
        i = token["id"]
        tokens[i] = token["content"]
        scores[i] = ADDED_SCORE
        types[i] = int(TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED)
    if unknown is not None:
        types[unknown] = int(TokenType.UNKNOWN)
    return tokens, scores, types
