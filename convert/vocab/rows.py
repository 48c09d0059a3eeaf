"""Text and type of every row of the embedding matrix, which all kinds of vocabularies share."""

from __future__ import annotations

from typing import Any

from gguf import TokenType

from convert.schemas import OF_ONE_MODEL
from orin_runner.errors import UserError


def rows(vocab: dict[str, int], added_tokens: list[dict[str, Any]], n_rows: int) -> tuple[list[str], list[int]]:
    """Text and ``gguf.TokenType`` of every token, one entry per embedding row.

    Args:
        vocab, added_tokens: as in a serialized ``tokenizers.Tokenizer``.
        n_rows: rows of the embedding matrix; rows without a token (padding) become unused tokens.

    Raises:
        UserError: there are fewer rows than tokens.
    """
    highest = max([*vocab.values(), *(token["id"] for token in added_tokens)])
    if highest >= n_rows:
        reason = f"the tokenizer has a token {highest}, the embeddings only {n_rows} rows"
        raise UserError(reason, OF_ONE_MODEL)
    tokens = [f"[PAD{i}]" for i in range(n_rows)]
    types = [int(TokenType.UNUSED)] * n_rows
    for piece, i in vocab.items():
        tokens[i], types[i] = piece, int(TokenType.NORMAL)
    for token in added_tokens:
        kind = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
        tokens[token["id"]], types[token["id"]] = token["content"], int(kind)
    return tokens, types
