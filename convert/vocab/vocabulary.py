"""The checkpoint's tokenizer, as the GGUF carries it.

Two forms are written. ``tokenizer.huggingface.json`` is the tokenizer exactly as the installed transformers builds it;
the runner encodes with that, so its token ids are Hugging Face's. llama.cpp's own vocabulary is written for every other
tool; it differs where llama.cpp does (white space after special tokens, for one).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from gguf import TokenType
from transformers import AutoTokenizer

from convert.checkpoint import DAMAGED
from orin_runner.errors import UserError
from orin_runner.files import read_json

END_OF_TURN = ("<|end|>", "<|eot_id|>", "<|im_end|>", "<end_of_turn>")
"""Names under which the common chat models end a turn; llama.cpp has a key of its own for that token."""

NEVER_SCORE = -10000.0


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the GGUF says of the tokenizer.

    Attributes:
        huggingface_json: serialized ``tokenizers.Tokenizer``.
        tokens, scores, types: llama.cpp's SentencePiece vocabulary, one entry per embedding row.
        bos, eos, unk, pad, eot: token ids, None where there is none.
        add_bos, add_eos: whether plain text gets them.
        stop: token ids that end a generation, from the generation config.
        chat_template: Jinja source, None where there is none.
        built_by: the library and version that built it.
    """

    huggingface_json: str
    tokens: list[str]
    scores: list[float]
    types: list[int]
    bos: int | None
    eos: int | None
    unk: int | None
    pad: int | None
    eot: int | None
    add_bos: bool
    add_eos: bool
    stop: list[int]
    chat_template: str | None
    built_by: str


def read_vocabulary(directory: Path, n_rows: int) -> Vocabulary:
    """Read a checkpoint's tokenizer and generation config.

    Args:
        directory: the checkpoint folder; ``tokenizer.json`` or ``tokenizer.model`` must be there.
        n_rows: rows of the embedding matrix; rows without a token become unused tokens.

    Raises:
        UserError: no tokenizer, one transformers cannot load, or one that is not SentencePiece-like BPE.
    """
    if not any((directory / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
        raise UserError(f"{directory} has neither tokenizer.json nor tokenizer.model", "download the checkpoint again")
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory)
    except Exception as error:  # the tokenizers library raises plain Exception
        reason = str(error).splitlines()[0]
        raise UserError(f"transformers cannot load the tokenizer of {directory}: {reason}") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"the tokenizer of {directory} has no fast implementation in transformers")
    serialized = backend.to_str()
    description = json.loads(serialized)
    model = description["model"]
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        raise UserError(f"the tokenizer of {directory} is not SentencePiece BPE with byte fallback, as Llama's is")
    tokens, scores, types = _pieces(model, description["added_tokens"], n_rows, tokenizer.unk_token_id)
    plain = backend.encode("a", add_special_tokens=False).ids
    framed = backend.encode("a", add_special_tokens=True).ids
    at = next(i for i in range(len(framed)) if framed[i : i + len(plain)] == plain)
    stop = _stop_tokens(directory, tokenizer.eos_token_id)
    eot = next((tokens.index(name) for name in END_OF_TURN if name in tokens and tokens.index(name) in stop), None)
    return Vocabulary(
        huggingface_json=serialized,
        tokens=tokens,
        scores=scores,
        types=types,
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
        unk=tokenizer.unk_token_id,
        pad=tokenizer.pad_token_id,
        eot=eot,
        add_bos=at > 0,
        add_eos=at + len(plain) < len(framed),
        stop=stop,
        chat_template=tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
        built_by=f"transformers {transformers.__version__}",
    )


def _pieces(
    model: dict[str, Any], added_tokens: list[dict[str, Any]], n_rows: int, unknown: int | None
) -> tuple[list[str], list[float], list[int]]:
    vocab: dict[str, int] = model["vocab"]
    highest = max([*vocab.values(), *(token["id"] for token in added_tokens)])
    if highest >= n_rows:
        raise UserError(f"the tokenizer has a token {highest}, the embeddings only {n_rows} rows")
    tokens = [f"[PAD{i}]" for i in range(n_rows)]
    scores = [NEVER_SCORE] * n_rows
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
        scores[i] = -1000.0
        types[i] = int(TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED)
    if unknown is not None:
        types[unknown] = int(TokenType.UNKNOWN)
    return tokens, scores, types


def _stop_tokens(directory: Path, eos: int | None) -> list[int]:
    path = directory / "generation_config.json"
    declared = read_json(path, DAMAGED).get("eos_token_id") if path.exists() else None
    if declared is None:
        declared = eos
    if declared is None:
        return []
    return sorted(set(declared)) if isinstance(declared, list) else [declared]
